"""Files: inputs of batches and their outputs, and whatever else a tenant keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from headrace.client.calls.links import AsyncLink, BlockingLink
from headrace.client.calls.retries import Retries
from headrace.client.calls.scripts import Emit, Read, RestCall, Script, Upload, sent, then

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class File:
    """A file of the tenant."""

    id: str
    name: str
    bytes: int
    purpose: str
    created_at: int
    """Unix seconds, as the next."""
    expires_at: int | None
    """None: it is kept until it is deleted."""
    raw: Mapping[str, Any] = field(repr=False)
    """All that the mesh says of it."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> File:
        return cls(
            id=raw["id"],
            name=raw["filename"],
            bytes=raw["bytes"],
            purpose=raw["purpose"],
            created_at=raw["created_at"],
            expires_at=raw.get("expires_at"),
            raw=raw,
        )


class FileScripts:
    """What the calls of files do."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries

    def upload(
        self,
        content: Path | bytes,
        *,
        name: str | None = None,
        purpose: str = "batch",
        expires_after_s: int | None = None,
    ) -> Script[File]:
        fields = {"purpose": purpose}
        if expires_after_s is not None:
            fields["expires_after[anchor]"] = "created_at"
            fields["expires_after[seconds]"] = str(expires_after_s)
        default = content.name if isinstance(content, Path) else "rows.jsonl"
        upload = Upload(name or default, content, fields)
        # Why not repeatable: if it has arrived, there would be two.
        call = RestCall("POST", "/v1/files", upload=upload, repeatable=False)
        return then(sent(call, self._retries), File.of)

    def get(self, file_id: str) -> Script[File]:
        return then(sent(RestCall("GET", path_of(file_id)), self._retries), File.of)

    def list(self, *, purpose: str | None = None) -> Script[None]:
        """Emit them, the newest first."""
        return pages("/v1/files", {"purpose": purpose, "limit": _PAGE}, File.of, self._retries)

    def content(self, file_id: str) -> Script[bytes]:
        call = RestCall("GET", f"{path_of(file_id)}/content", read=Read.BYTES)
        return sent(call, self._retries)

    def delete(self, file_id: str) -> Script[None]:
        call = RestCall("DELETE", path_of(file_id), repeatable=False)
        return then(sent(call, self._retries), lambda _: None)


def path_of(file_id: str) -> str:
    return f"/v1/files/{quote(file_id, safe='')}"


def pages(path: str, query: Mapping[str, Any], read: Any, retries: Retries) -> Script[None]:
    """Emit what a list has, page by page."""
    after: str | None = None
    while True:
        page = yield from sent(RestCall("GET", path, params={**query, "after": after}), retries)
        for each in page["data"]:
            yield Emit(read(each))
        if not page["has_more"]:
            return
        after = page["data"][-1]["id"]


class Files:
    """`client.files`"""

    def __init__(self, link: BlockingLink, scripts: FileScripts) -> None:
        self._link, self._scripts = link, scripts

    def upload(
        self,
        content: Path | bytes,
        *,
        name: str | None = None,
        purpose: str = "batch",
        expires_after_s: int | None = None,
    ) -> File:
        """Store the file at a path, or bytes; at most 200 MiB.

        It is not sent again where the connection was lost: then `list` says whether it arrived.

        Raises:
            OSError: the file cannot be read.
        """
        script = self._scripts.upload(
            content, name=name, purpose=purpose, expires_after_s=expires_after_s
        )
        return self._link.run(script)

    def get(self, file_id: str) -> File:
        return self._link.run(self._scripts.get(file_id))

    def list(self, *, purpose: str | None = None) -> Iterator[File]:
        """Yield the files, the newest first."""
        return self._link.iterate(self._scripts.list(purpose=purpose))

    def content(self, file_id: str) -> bytes:
        return self._link.run(self._scripts.content(file_id))

    def delete(self, file_id: str) -> None:
        self._link.run(self._scripts.delete(file_id))


class AsyncFiles:
    """`Files` of an `AsyncClient`."""

    def __init__(self, link: AsyncLink, scripts: FileScripts) -> None:
        self._link, self._scripts = link, scripts

    async def upload(
        self,
        content: Path | bytes,
        *,
        name: str | None = None,
        purpose: str = "batch",
        expires_after_s: int | None = None,
    ) -> File:
        script = self._scripts.upload(
            content, name=name, purpose=purpose, expires_after_s=expires_after_s
        )
        return await self._link.run(script)

    async def get(self, file_id: str) -> File:
        return await self._link.run(self._scripts.get(file_id))

    def list(self, *, purpose: str | None = None) -> AsyncIterator[File]:
        return self._link.iterate(self._scripts.list(purpose=purpose))

    async def content(self, file_id: str) -> bytes:
        return await self._link.run(self._scripts.content(file_id))

    async def delete(self, file_id: str) -> None:
        await self._link.run(self._scripts.delete(file_id))
