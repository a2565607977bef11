"""The front end: the page at ``/`` and the files of ``/static/``.

/static/queue-viewer.js            asked for again with its ETag
/static/<version>/queue-viewer.js  kept for ever; the version is of the package and of the content
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.metadata import version as version_of

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sidecar.bundle import ENTRY, FOLDER, make_bundle

TYPES = {
    ENTRY: "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
REVALIDATED = "no-cache"
IMMUTABLE = "public, max-age=31536000, immutable"
# Any page may show the viewer; what it shows has to be asked for.
HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Queue</title>
<link rel="icon" href="{base}static/{version}/icon.svg">
<link rel="stylesheet" href="{base}static/{version}/page.css">
<script type="module" src="{base}static/{version}/queue-viewer.js"></script>
<body>
<queue-viewer inline page src="{base}"></queue-viewer>
<noscript><p>This page needs JavaScript.
<a href="{base}api/v1/queue/status">The figures</a> can be read without it.</p></noscript>
"""


@dataclass(frozen=True)
class Asset:
    """A file as it is sent."""

    content: bytes
    gzipped: bytes
    media_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Every file, made once."""
    return {name: _asset(name, media_type) for name, media_type in TYPES.items()}


@cache
def version() -> str:
    """What stands in the address of what never changes."""
    digest = hashlib.sha256(b"".join(asset.content for asset in assets().values())).hexdigest()
    return f"{version_of('celery-sidecar')}-{digest[:8]}"


async def page(request: Request) -> Response:
    """The viewer as a page; its links hold under any prefix, also one that only a proxy knows."""
    root = request.scope.get("root_path", "").rstrip("/")
    base = escape(f"{root}/" if root else "./")
    headers = {
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": REVALIDATED,
    }
    return Response(PAGE.format(base=base, version=version()), media_type="text/html", headers=headers)


async def static(request: Request) -> Response:
    """A file, with or without the version in its address."""
    folder, _, name = request.path_params["path"].rpartition("/")
    asset = assets().get(name)
    if asset is None or folder not in ("", version()):
        raise HTTPException(404)
    caching = {"ETag": f'"{asset.etag}"', "Cache-Control": IMMUTABLE if folder else REVALIDATED}
    if asset.etag in _known(request):
        return Response(status_code=304, headers=HEADERS | caching)
    content, encoding = asset.content, {}
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, encoding = asset.gzipped, {"Content-Encoding": "gzip"}
    return Response(content, media_type=asset.media_type, headers=HEADERS | caching | encoding)


def _known(request: Request) -> list[str]:
    # A proxy that compresses makes an ETag a weak one.
    tags = request.headers.get("if-none-match", "").split(",")
    return [tag.strip().removeprefix("W/").strip('"') for tag in tags]


def _asset(name: str, media_type: str) -> Asset:
    content = make_bundle().encode() if name == ENTRY else (FOLDER / name).read_bytes()
    etag = hashlib.sha256(content).hexdigest()[:16]
    return Asset(content, gzip.compress(content, mtime=0), media_type, etag)
