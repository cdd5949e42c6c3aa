"""Batches: many requests in one file, answered within a window."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from headrace.client.calls.links import AsyncLink, BlockingLink
from headrace.client.calls.retries import Retries
from headrace.client.calls.scripts import Read, RestCall, Script, Sleep, read_all, sent, then
from headrace.client.rest.files import FileScripts, pages, path_of
from headrace.errors import DeadlineExceeded, FailedPrecondition

CHAT = "/v1/chat/completions"
Rows = str | Path | Iterable[Mapping[str, Any]]
"""Of a batch: the id of a file that was uploaded, the path of one to upload, or the rows."""
ENDED = ("completed", "failed", "expired", "cancelled")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 10.0


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it is now."""

    id: str
    status: str
    """"validating", "in_progress", "finalizing", "cancelling", or one of `ENDED`."""
    endpoint: str
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    total: int
    """Rows, as the next two."""
    completed: int
    failed: int
    raw: Mapping[str, Any] = field(repr=False)
    """All that the mesh says of it: `errors`, `usage`, times, `metadata`."""

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Batch:
        counts = raw.get("request_counts") or {}
        return cls(
            id=raw["id"],
            status=raw["status"],
            endpoint=raw["endpoint"],
            input_file_id=raw["input_file_id"],
            output_file_id=raw.get("output_file_id"),
            error_file_id=raw.get("error_file_id"),
            total=counts.get("total", 0),
            completed=counts.get("completed", 0),
            failed=counts.get("failed", 0),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one row."""

    custom_id: str
    status: int | None
    """HTTP's, of its answer; None: it did not run."""
    body: Mapping[str, Any]
    """The answer of the endpoint; empty: it did not run."""
    error: Mapping[str, Any] | None
    """`code` and `message`; None: it succeeded."""

    @property
    def text(self) -> str:
        """The text of the first choice; empty where the endpoint makes none."""
        for choice in self.body.get("choices", ()):
            return str(choice.get("text") or (choice.get("message") or {}).get("content") or "")
        return ""

    @classmethod
    def of(cls, line: bytes) -> BatchResult:
        row = json.loads(line)
        response = row.get("response") or {}
        body = response.get("body") or {}
        return cls(
            custom_id=row["custom_id"],
            status=response.get("status_code"),
            body=body,
            error=row.get("error") or body.get("error"),
        )


def batch_lines(rows: Iterable[Mapping[str, Any]], endpoint: str) -> bytes:
    """Return the file of rows. A row without `body` is the body itself, and gets `row-N` as id."""
    lines = []
    for number, row in enumerate(rows):
        whole = dict(row) if "body" in row else {"body": row}
        lines.append({"custom_id": f"row-{number}", "method": "POST", "url": endpoint, **whole})
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


class BatchScripts:
    """What the calls of batches do."""

    def __init__(self, retries: Retries) -> None:
        self._retries, self._files = retries, FileScripts(retries)

    def create(
        self, rows: Rows, *, endpoint: str, window: str, metadata: Mapping[str, str] | None
    ) -> Script[Batch]:
        if isinstance(rows, str):
            file_id = rows
        else:
            content = rows if isinstance(rows, Path) else batch_lines(rows, endpoint)
            file_id = (yield from self._files.upload(content)).id
        body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": window}
        noted = {"metadata": dict(metadata)} if metadata else {}
        # With the key, a call that is sent again returns the batch of the first.
        key = {"idempotency-key": uuid4().hex}
        call = RestCall("POST", "/v1/batches", json=body | noted, headers=key)
        return Batch.of((yield from sent(call, self._retries)))

    def get(self, batch_id: str) -> Script[Batch]:
        return then(sent(RestCall("GET", _path(batch_id)), self._retries), Batch.of)

    def list(self) -> Script[None]:
        """Emit them, the newest first."""
        return pages("/v1/batches", {"limit": 100}, Batch.of, self._retries)

    def cancel(self, batch_id: str) -> Script[Batch]:
        call = RestCall("POST", f"{_path(batch_id)}/cancel")
        return then(sent(call, self._retries), Batch.of)

    def wait(self, batch_id: str, timeout_s: float) -> Script[Batch]:
        end_s, pause_s = time.monotonic() + timeout_s, _FIRST_PAUSE_S
        while not (batch := (yield from self.get(batch_id))).has_ended:
            if time.monotonic() + pause_s > end_s:
                raise DeadlineExceeded(
                    f"batch {batch_id} has not ended within {timeout_s:g} s; it runs on"
                )
            yield Sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return batch

    def results(self, batch_id: str) -> Script[None]:
        """Emit what became of each row: those with answers first, then those that failed."""
        batch = yield from self.get(batch_id)
        if not batch.has_ended:
            raise FailedPrecondition(f"batch {batch_id} is {batch.status}; wait for its end")
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                call = RestCall("GET", f"{path_of(file_id)}/content", read=Read.LINES)
                yield from read_all(call, self._retries, BatchResult.of)


def _path(batch_id: str) -> str:
    return f"/v1/batches/{quote(batch_id, safe='')}"


class Batches:
    """`client.batches`"""

    def __init__(self, link: BlockingLink, scripts: BatchScripts) -> None:
        self._link, self._scripts = link, scripts

    def create(
        self,
        rows: Rows,
        *,
        endpoint: str = CHAT,
        window: str = "24h",
        metadata: Mapping[str, str] | None = None,
    ) -> Batch:
        """Start a batch; return at once. Rows that are given, or a path, are uploaded first.

        Args:
            rows: bodies of the endpoint, or whole rows with `custom_id` and `body`.
            endpoint: of all rows.
            window: time for all of them, minutes or hours: "90m".
            metadata: notes, at most 16.
        """
        script = self._scripts.create(rows, endpoint=endpoint, window=window, metadata=metadata)
        return self._link.run(script)

    def get(self, batch_id: str) -> Batch:
        return self._link.run(self._scripts.get(batch_id))

    def list(self) -> Iterator[Batch]:
        """Yield the batches, the newest first."""
        return self._link.iterate(self._scripts.list())

    def cancel(self, batch_id: str) -> Batch:
        """End a batch; what is finished stays in its output."""
        return self._link.run(self._scripts.cancel(batch_id))

    def wait(self, batch_id: str, *, timeout_s: float = float("inf")) -> Batch:
        """Return the batch once it has ended. DeadlineExceeded: it has not, and runs on."""
        return self._link.run(self._scripts.wait(batch_id, timeout_s))

    def results(self, batch_id: str) -> Iterator[BatchResult]:
        """Yield each row once: those with answers first, then those that failed."""
        return self._link.iterate(self._scripts.results(batch_id))


class AsyncBatches:
    """`Batches` of an `AsyncClient`."""

    def __init__(self, link: AsyncLink, scripts: BatchScripts) -> None:
        self._link, self._scripts = link, scripts

    async def create(
        self,
        rows: Rows,
        *,
        endpoint: str = CHAT,
        window: str = "24h",
        metadata: Mapping[str, str] | None = None,
    ) -> Batch:
        script = self._scripts.create(rows, endpoint=endpoint, window=window, metadata=metadata)
        return await self._link.run(script)

    async def get(self, batch_id: str) -> Batch:
        return await self._link.run(self._scripts.get(batch_id))

    def list(self) -> AsyncIterator[Batch]:
        return self._link.iterate(self._scripts.list())

    async def cancel(self, batch_id: str) -> Batch:
        return await self._link.run(self._scripts.cancel(batch_id))

    async def wait(self, batch_id: str, *, timeout_s: float = float("inf")) -> Batch:
        return await self._link.run(self._scripts.wait(batch_id, timeout_s))

    def results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        return self._link.iterate(self._scripts.results(batch_id))
