"""The dashboard's files, read once. Anybody may have them: what they show comes over the streams."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
SECURITY = {
    "Content-Security-Policy": "; ".join(
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
            "trusted-types 'none'",
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer here. Nothing inline, nothing of another host, in no frame; a form sends nothing by itself."""
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Page(NamedTuple):
    content: bytes
    type: str
    tag: str

    def answer(self, request: Request) -> Response:
        """Kept by the browser, which asks each time whether it has changed."""
        headers = {**SECURITY, "Cache-Control": "no-cache", "ETag": self.tag}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self.tag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.type, headers=headers)


def load() -> dict[str, Page]:
    """By file name."""
    return {path.name: _page(path) for path in STATIC.iterdir()}


def endpoint(page: Page) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def answer(request: Request) -> Response:
        return page.answer(request)

    return answer


def _page(path: Path) -> Page:
    content = path.read_bytes()
    return Page(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
