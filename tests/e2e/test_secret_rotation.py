"""A key and the peppers are rotated while the key is in use: no call fails."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from headrace.auth.peppers import PEPPER_BYTES
from helpers.command import headrace
from helpers.eventually import eventually
from helpers.running_mesh import RunningMesh, start, stop

CALLERS = 3


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[RunningMesh]:
    # Not two minutes, after which digests under a new pepper are stored by default.
    settle = ("--set", "control.pepper_settle_s=2")
    running = start(tmp_path, "--engine", "scripted", "--gateways", "2", "--auth", "keys", *settle)
    yield running
    stop(running)


class Callers:
    """Clients that use whatever key they have now, without a pause."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key
        self.statuses: dict[int, int] = {}

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._call()) for _ in range(CALLERS)]
            yield
            for each in running:
                each.cancel()

    async def _call(self) -> None:
        body = {"model": "scripted", "prompt": "Hello", "max_tokens": 2}
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=20) as http:
            while True:
                headers = {"authorization": f"Bearer {self.key}"}
                answer = await http.post("/v1/completions", json=body, headers=headers)
                self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
                await asyncio.sleep(0.1)


def write_peppers(file: Path, lines: list[str]) -> None:
    """Replace the file as an operator does: at once, and for its owner alone."""
    draft = file.with_name("draft")
    with open(os.open(draft, os.O_CREAT | os.O_WRONLY, 0o600), "w") as opened:
        opened.write("\n".join(lines) + "\n")
    draft.replace(file)


async def json_of(mesh: RunningMesh, *arguments: str) -> list[dict[str, str]] | dict[str, str]:
    ran = await headrace(*arguments, "--json", "--state-dir", str(mesh.folder), folder=mesh.folder)
    assert ran.status == 0, ran.err
    return json.loads(ran.out)  # type: ignore[no-any-return]


@pytest.mark.timeout(120)
async def test_no_call_fails_while_keys_and_peppers_are_rotated(mesh: RunningMesh) -> None:
    made = await json_of(mesh, "key", "create", "--tenant", "acme")
    assert isinstance(made, dict)
    callers = Callers(mesh.url, made["key"])
    peppers = mesh.folder / "secrets" / "peppers"
    old = peppers.read_text().splitlines()
    new = f"new {base64.b64encode(os.urandom(PEPPER_BYTES)).decode()}"

    async def has_moved() -> bool:
        found = await json_of(mesh, "key", "list", "--tenant", "acme", "--old-pepper")
        return found == []

    async with callers.calling():
        rotated = await json_of(mesh, "key", "rotate", made["id"], "--grace", "60s")
        assert isinstance(rotated, dict)
        await asyncio.sleep(0.5)
        callers.key = rotated["key"]
        write_peppers(peppers, [new, *old])
        await eventually(has_moved, within_s=60)
        write_peppers(peppers, [new])
        await asyncio.sleep(3)
    assert set(callers.statuses) == {200}
    assert callers.statuses[200] > 100
