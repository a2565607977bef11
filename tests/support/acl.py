"""The user of `deploy/redis-sidecar.acl`, under which every sidecar of the tests runs."""

from __future__ import annotations

from urllib.parse import urlsplit

from deploy.demo.child import CHECKOUT

ACL_FILE = CHECKOUT / "deploy" / "redis-sidecar.acl"
PLACEHOLDER = "REPLACE-THIS-PASSWORD"
USER = "sidecar"
PASSWORD = "only-for-the-tests"


def rules() -> list[str]:
    """The rules as the file has them, with the tests' password, for ``ACL SETUSER sidecar``."""
    [line] = [line for line in ACL_FILE.read_text().splitlines() if line.startswith("user ")]
    word, user, *rest = line.replace(PLACEHOLDER, PASSWORD).split()
    assert (word, user) == ("user", USER), line
    return rest


def arguments() -> list[str]:
    """Make the arguments with which a server has the user from its start, after every restart too."""
    return ["--user", USER, *rules()]


def as_user(url: str) -> str:
    """Name the user in the URL of a server of the tests; a URL that names one already stays as it is."""
    parts = urlsplit(url)
    if parts.scheme != "redis" or parts.username or parts.password:
        return url
    return parts._replace(netloc=f"{USER}:{PASSWORD}@{parts.netloc}").geturl()
