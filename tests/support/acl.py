"""The users of `deploy/*.acl`; under the one of the sidecar every sidecar of the tests runs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from deploy.demo.child import CHECKOUT

ACL_FILE = CHECKOUT / "deploy" / "redis-sidecar.acl"
WORKER_FILE = CHECKOUT / "deploy" / "redis-worker.acl"
PLACEHOLDER = "REPLACE-THIS-PASSWORD"
USER, WORKER = "sidecar", "worker"
PASSWORD = "only-for-the-tests"


def rules(file: Path = ACL_FILE, user: str = USER, prefix: str = "queue") -> list[str]:
    """The rules as the file has them, with the tests' password and prefix, for ``ACL SETUSER``."""
    [line] = [line for line in file.read_text().splitlines() if line.startswith("user ")]
    word, name, *rest = line.replace(PLACEHOLDER, PASSWORD).replace("queue:", f"{prefix}:").split()
    assert (word, name) == ("user", user), line
    return rest


def arguments(prefix: str = "queue") -> list[str]:
    """Make the arguments with which a server has both users from its start, after every restart too."""
    return ["--user", USER, *rules(prefix=prefix), "--user", WORKER, *rules(WORKER_FILE, WORKER, prefix)]


def as_user(url: str, user: str = USER) -> str:
    """Name a user in the URL of a server of the tests; a URL that names one already stays as it is."""
    parts = urlsplit(url)
    if parts.scheme != "redis" or parts.username or parts.password:
        return url
    return parts._replace(netloc=f"{user}:{PASSWORD}@{parts.netloc}").geturl()
