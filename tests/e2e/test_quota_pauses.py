"""A stream that a minute's limit pauses: whatever dies meanwhile, its text is that of any other."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers.command import headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh

TOKENS, LIMIT = 1500, 1100
"""Two portions of 512 and the prompt are granted at once; the third a minute later."""
MODEL = "scripted"


async def new_key(mesh: FreshMesh, *limits: str) -> dict[str, str]:
    """Return the headers of a new key."""
    options = ("key", "create", "--tenant", "acme", *limits, "--json")
    ran = await headrace(*options, folder=mesh.folder)
    assert ran.status == 0, ran.out + ran.err
    return {"authorization": f"Bearer {json.loads(ran.out)['key']}"}


def body(seed: int, **changes: Any) -> dict[str, Any]:
    asked = {"model": MODEL, "prompt": "Hello", "max_tokens": TOKENS, "seed": seed}
    return asked | {"ignore_eos": True} | changes


@dataclass
class Reader:
    """Of one stream, which comes back whenever it breaks off."""

    http: httpx.AsyncClient
    headers: dict[str, str]
    text: str = ""
    waits: int = 0
    """How often it was sent that it waits for quota."""
    error: dict[str, Any] = field(default_factory=dict)
    done: bool = False
    connections: int = 0
    _last_id: str = ""
    _next_id: str = ""

    async def read(self, asked: dict[str, Any]) -> Reader:
        asked = asked | {"stream": True}
        async with asyncio.timeout(150):
            while not self.done:
                try:
                    await self._connect(asked)
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
        return self

    async def _connect(self, asked: dict[str, Any]) -> None:
        self.connections += 1
        headers = self.headers | {"x-headrace-resume": "true"}
        if self._last_id:
            headers["last-event-id"] = self._last_id
        async with self.http.stream(
            "POST", "/v1/completions", json=asked, headers=headers
        ) as answer:
            if answer.status_code == 503:
                await asyncio.sleep(0.2)
                return
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                self._take(line)

    def _take(self, line: str) -> None:
        if line.startswith("id: "):
            self._next_id = line.removeprefix("id: ")
        elif line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            self.error = event.get("error", {})
            self.done |= bool(self.error)
            self.text += "".join(each["text"] for each in event.get("choices", ()))
        elif line.startswith(": waiting for quota"):
            self.waits += 1
        elif not line:
            self._last_id = self._next_id or self._last_id


async def usage(mesh: FreshMesh) -> tuple[int, int]:
    """Requests and output tokens that are billed to the tenant."""
    ran = await headrace("usage", "--tenant", "acme", "--json", folder=mesh.folder)
    found = json.loads(ran.out) or [{"requests": 0, "output_tokens": 0}]
    return found[0]["requests"], found[0]["output_tokens"]


@pytest.mark.timeout(400)
async def test_a_paused_stream_outlives_every_process_and_has_the_text_of_any_other(
    tmp_path: Path,
) -> None:
    options = ("--auth", "keys", "--gateways", "2", "--workers", "2", "--scripted-step-ms", "2")
    async with (
        fresh_mesh(tmp_path, *options) as mesh,
        httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=120) as http,
    ):
        free = await new_key(mesh)
        expected = await Reader(http, free).read(body(7))
        assert expected.waits == 0
        limited = await new_key(mesh, "--tokens-per-minute", str(LIMIT))
        daily = await new_key(mesh, "--tokens-per-day", "600")
        reader = Reader(http, limited)
        reading = asyncio.create_task(reader.read(body(7)))
        await eventually(lambda: reader.waits > 0, within_s=50)
        stopped_at = len(reader.text)
        assert expected.text.startswith(reader.text)
        assert stopped_at < len(expected.text)

        for kind in ("worker", "scheduler", "gateway"):
            for name in [name for name in mesh.processes if name.startswith(kind)]:
                await mesh.kill(name)
        assert len(reader.text) == stopped_at, "it still waits"
        await reading
        assert reader.text == expected.text
        assert reader.error == {}
        assert reader.connections > 1

        both = body(8, n=2, max_tokens=400)
        ended = await http.post("/v1/completions", json=both, headers=daily)
        assert ended.status_code == 429, ended.text
        assert ended.json()["error"]["code"] == "insufficient_quota"
        assert ended.json()["usage"]["completion_tokens"] == 512
        whole = (await http.post("/v1/completions", json=both, headers=free)).json()
        for part, choice in zip(ended.json()["choices"], whole["choices"], strict=True):
            assert part["text"]
            assert choice["text"].startswith(part["text"])

        async def is_billed() -> bool:
            return await usage(mesh) == (4, 2 * TOKENS + 512 + 800)

        await eventually(is_billed, within_s=30)
