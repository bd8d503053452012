"""Serves the files of the page, and lets a browser run nothing else.

The policy allows scripts, styles and pictures of the service's own files, and requests to the service; with Trusted
Types no text becomes markup, whatever the page's code would do with it.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from starlette.responses import Response

from lnh_rest.route import Call, Handler, Route, Who

INDEX: Final = "index.html"
PREFIX: Final = "/dashboard/"
_ALLOWED: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
POLICY: Final = "; ".join(f"{what} {who}" for what, who in _ALLOWED.items())
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
MEDIA_TYPES: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


def routes() -> list[Route]:
    """Make a row for each file of the page; the page itself is at the root."""
    page = files("lnh_rest.dashboard") / "page"
    names = sorted(each.name for each in page.iterdir() if each.name.rpartition(".")[2] in MEDIA_TYPES)
    found = []
    for name in names:
        path = "/" if name == INDEX else f"{PREFIX}{name}"
        handler = _serving((page / name).read_bytes(), MEDIA_TYPES[name.rpartition(".")[2]])
        found.append(Route("GET", path, "Show the dashboard.", Who.ANYBODY, handler))
    return found


def _serving(content: bytes, media_type: str) -> Handler:
    async def show_file(_: Call) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return show_file
