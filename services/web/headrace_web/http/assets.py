"""The files of the page, from memory, with the headers that keep it safe."""

from __future__ import annotations

import gzip
import logging
import mimetypes
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

log = logging.getLogger(__name__)

STATIC = Path(__file__).parents[1] / "static"
"""Where `make web` puts the page."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types svelte-trusted-html dompurify"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_UNCHANGING = "public, max-age=31536000, immutable"
_SMALL = 512
_NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Headrace</title>
<h1>The page is not built</h1><p>Run <code>make web</code>, then reload. The API is served.</p>
"""
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("font/woff2", ".woff2")
mimetypes.add_type("application/manifest+json", ".webmanifest")


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    packed: bytes | None
    media_type: str
    tag: str
    is_unchanging: bool


class Assets:
    """All files of a folder, read once. Files of `assets/` have a hash of their content in their
    names, by Vite, so that browsers keep them for ever."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._files: dict[str, _File] = {}
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                self._files[name] = _file(path.read_bytes(), name)
        self.is_built = "index.html" in self._files
        if not self.is_built:
            log.warning("page.not_built", extra={"folder": str(folder), "what_to_do": "make web"})
            self._files["index.html"] = _file(_NOT_BUILT.encode(), "index.html")

    async def serve(self, request: Request) -> Response:
        """Answer for /ui/{path}; the empty path is the page itself."""
        name = request.path_params.get("path", "") or "index.html"
        file = self._files.get(name)
        if file is None:
            return Response("there is no such file\n", 404, HEADERS, "text/plain")
        headers = {**HEADERS, "etag": file.tag, "vary": "accept-encoding"}
        headers["cache-control"] = _UNCHANGING if file.is_unchanging else "no-cache"
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if file.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(file.packed, 200, headers, file.media_type)
        return Response(file.content, 200, headers, file.media_type)


def _file(content: bytes, name: str) -> _File:
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    is_text = media_type.startswith("text/") or media_type.endswith(("+json", "+xml", "json"))
    packed = gzip.compress(content, 9, mtime=0) if is_text and len(content) > _SMALL else None
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    return _File(content, packed, media_type, tag, name.startswith("assets/"))
