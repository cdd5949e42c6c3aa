"""A mesh of the scripted engine for one test, whose processes can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from headrace.supervisor.state.state_dir import ProcessRecord, StateDir
from helpers.command import headrace
from helpers.eventually import eventually

BACK_WITHIN_S = 45.0
"""A worker with a model imports torch first, which a busy machine takes its time for."""


@dataclass(frozen=True)
class FreshMesh:
    """Started in `folder`, with its state in `folder/.headrace`."""

    folder: Path
    url: str

    @property
    def state_dir(self) -> StateDir:
        return StateDir(self.folder / ".headrace")

    @property
    def processes(self) -> dict[str, ProcessRecord]:
        return {process.name: process for process in self.state_dir.read_record().processes}

    async def status(self) -> dict[str, Any]:
        ran = await headrace("status", "--json", folder=self.folder)
        found: dict[str, Any] = json.loads(ran.out)
        return found

    def strike(self, name: str) -> ProcessRecord:
        """SIGKILL; returns what it was."""
        before = self.processes[name]
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        return before

    async def kill(self, name: str) -> None:
        """SIGKILL; returns once the supervisor has another run of it, which listens."""
        await self.back(self.strike(name))

    async def back(self, before: ProcessRecord) -> None:
        """Returns once the supervisor has another run of the killed process, which listens."""
        await eventually(lambda: self._is_back(before), within_s=BACK_WITHIN_S)

    async def counted(self, name: str, metric: str) -> float:
        """The sum of a process's metric over its labels."""
        port = self.processes[name].ports["metrics"]
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        families = text_string_to_metric_families(text)
        return sum(s.value for family in families for s in family.samples if s.name == metric)

    def _is_back(self, before: ProcessRecord) -> bool:
        now = self.processes[before.name]
        return now.pid not in (None, before.pid) and bool(now.ports)


@asynccontextmanager
async def fresh_mesh(folder: Path, *options: str) -> AsyncIterator[FreshMesh]:
    """Ready on entry, gone on exit."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    up = ("up", "--detach", "--port", "0", "--no-web", "--engine", "scripted")
    ran = await headrace(*up, *options, folder=folder)
    assert ran.status == 0, ran.out + ran.err
    try:
        url = StateDir(folder / ".headrace").read_record().url
        assert url is not None
        yield FreshMesh(folder, url)
    finally:
        await headrace("down", folder=folder)
