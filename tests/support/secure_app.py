"""An app whose broker is a Redis behind TLS, as Celery is told of it; it is never connected."""

from __future__ import annotations

import ssl

from tests.support.tasks_app import make_app

app = make_app(
    "rediss://:hunter2@127.0.0.1:6390/2",
    broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/etc/ca.pem", "ssl_keyfile": None},
    sidecar_prefix="other",
    sidecar_url="https://sidecar.example",
)
