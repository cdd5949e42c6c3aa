"""What feeding a batch needs, scripted: gateways that answer rows, and files in memory."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from headrace.errors import GatewayUnreachable, ResourceNotFound
from headrace.internal.v1.rows_pb2 import RowAnswer
from headrace.v1.common_pb2 import Usage
from headrace_control.base.batches import Batch, Owner
from headrace_control.base.files import BATCH, PROCESSED, File, NewFile
from headrace_control.batches.input_rows import InputRow

Key = tuple[str, int]
"""Batch and line of a row."""

GO, LOST, KILL = "go", "lost", "kill"
"""What happens at a step: nothing, a connection breaks, the process dies."""


@dataclass
class Steps:
    """Faults, one for each step of the world; then none. `kill` is called where the process dies,
    which does nothing more from there on."""

    faults: Iterator[str]
    kill: Callable[[], None] = lambda: None

    async def step(self) -> None:
        """
        Raises:
            GatewayUnreachable: the connection broke.
        """
        fault = next(self.faults, GO)
        await asyncio.sleep(0)
        if fault == KILL:
            self.kill()
            await asyncio.Event().wait()
        if fault == LOST:
            raise GatewayUnreachable("the connection broke")


def succeeds(row: InputRow, run: int) -> RowAnswer:
    """Answer with the line of the row, and one token each way."""
    usage = Usage(prompt_tokens=1, output_tokens=1)
    body = json.dumps({"line": row.line}).encode()
    return RowAnswer(status=200, body=body, request_id=str(row.line), usage=usage)


def refused(status: int, *, retry_after_s: float | None = None) -> RowAnswer:
    response = RowAnswer(status=status, body=b'{"error": {}}')
    if retry_after_s is not None:
        response.retry_after.FromNanoseconds(int(retry_after_s * 1e9))
    return response


@dataclass
class ScriptedRunner:
    """Gateways that keep a row's final answer, however often they are called for it."""

    steps: Steps
    answer: Callable[[InputRow, int], RowAnswer] = succeeds
    """Of a row, at its run of this number, from 0 on."""
    refused_models: dict[str, str] = field(default_factory=dict)
    answers: dict[Key, RowAnswer] = field(default_factory=dict)
    called: set[Key] = field(default_factory=set)
    not_fresh: set[Key] = field(default_factory=set)
    """Called for as if they never were before."""
    runs: Counter[Key] = field(default_factory=Counter)
    running: int = 0
    most_running: int = 0
    holds: asyncio.Event | None = None
    """Rows run until it is set, or until they are cancelled."""
    held_from: int = 1
    """Rows of earlier lines do not wait for that."""
    cancelled: dict[Key, asyncio.Event] = field(default_factory=dict)

    async def run(self, batch: Batch, row: InputRow, *, is_fresh: bool) -> RowAnswer:
        key = batch.batch_id, row.line
        if is_fresh and key in self.called:
            self.not_fresh.add(key)
        self.called.add(key)
        await self.steps.step()
        if key not in self.answers:
            response = await self._run(key, row)
            if response.HasField("retry_after"):
                return response
            self.answers[key] = response
        await self.steps.step()
        return self.answers[key]

    async def _run(self, key: Key, row: InputRow) -> RowAnswer:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        cancelled = self.cancelled.setdefault(key, asyncio.Event())
        try:
            if self.holds is not None and row.line >= self.held_from:
                waits = [asyncio.create_task(e.wait()) for e in (self.holds, cancelled)]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
            if cancelled.is_set():
                return refused(499, retry_after_s=1)
            self.runs[key] += 1
            return self.answer(row, self.runs[key] - 1)
        finally:
            self.running -= 1

    async def cancel(self, batch: Batch, line: int) -> None:
        self.cancelled.setdefault((batch.batch_id, line), asyncio.Event()).set()

    async def refusals(self, owner: Owner, models: Sequence[str]) -> dict[str, str]:
        await self.steps.step()
        return {
            model: self.refused_models[model] for model in models if model in self.refused_models
        }


@dataclass
class MemoryFiles:
    """Files that are there whole or not at all."""

    steps: Steps
    contents: dict[str, bytes] = field(default_factory=dict)

    async def get(self, tenant: str, file_id: str) -> File:
        await self.steps.step()
        if file_id not in self.contents:
            raise ResourceNotFound(f"file {file_id} not found")
        size, now = len(self.contents[file_id]), datetime(2026, 1, 1, tzinfo=UTC)
        return File(file_id, tenant, BATCH, "rows.jsonl", size, "", PROCESSED, now)

    async def read(self, file: File) -> AsyncIterator[bytes]:
        content = self.contents[file.file_id]
        for start in range(0, len(content), 1000):
            await self.steps.step()
            yield content[start : start + 1000]

    async def create(
        self, new: NewFile, pieces: AsyncIterable[bytes], *, file_id: str = ""
    ) -> File:
        await self.steps.step()
        if file_id not in self.contents:
            content = b""
            async for piece in pieces:
                await self.steps.step()
                content += piece
            self.contents[file_id] = content
            await self.steps.step()
        return await self.get(new.tenant, file_id)

    def lines(self, file_id: str) -> list[dict[str, object]]:
        """Return the lines of a file; of one that is not there, none."""
        return [json.loads(line) for line in self.contents.get(file_id, b"").splitlines()]


def rows(count: int, *, model: str = "m") -> bytes:
    """Return an input file of rows `r1`, `r2` and so on."""
    lines = (
        {
            "custom_id": f"r{i}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": model, "prompt": "x"},
        }
        for i in range(1, count + 1)
    )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
