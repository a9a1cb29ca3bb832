"""The page at `/`: chat, the steps of a run as they happen, its cost, and past runs.

Plain files, no build step, nothing loaded from elsewhere: the policy below allows the page's own files and nothing
more, so a model's answer cannot bring in a script, a picture or a frame.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Asked again every time and answered with 304: a new version shows at once.
    "Cache-Control": "no-cache",
}

FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "view.js": "text/javascript; charset=utf-8",
    "text.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class File:
    """One of the page's files."""

    body: bytes
    media_type: str
    tag: str


@cache
def load(name: str) -> File:
    """A file of this package with its entity tag. Raises KeyError for a name that is not in `FILES`."""
    media_type = FILES[name]
    body = files(__name__).joinpath(name).read_bytes()
    return File(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:16]}"')


@router.get("/")
async def index(request: Request) -> Response:
    """The page."""
    return _answer(request, "index.html")


@router.get("/web/{name}")
async def file(request: Request, name: str) -> Response:
    """One of its files."""
    if name not in FILES:
        return Response("Not found", 404, HEADERS, "text/plain")
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    found = load(name)
    headers = {**HEADERS, "ETag": found.tag}
    if request.headers.get("if-none-match") == found.tag:
        return Response(None, 304, headers)
    return Response(found.body, 200, headers, found.media_type)
