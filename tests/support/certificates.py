"""Certificates of an authority that nobody but the test trusts."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """An authority, and what a server on 127.0.0.1 needs to show."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path) -> Certificates:
    """Make them with the ``openssl`` of this machine."""
    made = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    ca_key, request, names = directory / "ca.key", directory / "request.pem", directory / "names"
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    new_key = ("req", "-newkey", "rsa:2048", "-nodes")
    _openssl(
        *new_key, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", ca_key, "-out", made.authority
    )
    _openssl(*new_key, "-subj", "/CN=localhost", "-keyout", made.key, "-out", request)
    signed_by = ("-CA", made.authority, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", names)
    _openssl("x509", "-req", "-in", request, *signed_by, "-out", made.certificate)
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
