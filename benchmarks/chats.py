"""Short chats, one after another over kept-alive connections: the load of what a request costs."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from headrace.bench.cpu import cpu_seconds, difference
from headrace.supervisor.state.state_dir import StateDir

IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class Cost:
    mode: str
    cpu_ms_per_request: float
    """Of all processes of the mesh, with what they do anyway."""
    by_process: dict[str, float]
    wall_s: float


async def send_chats(
    url: str, requests: int, *, key: str = "", model: str = "scripted", ca_file: Path | None = None
) -> None:
    """Send chats of a few tokens.

    Raises:
        SystemExit: a request failed; its cost would flatter.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    verify = False if ca_file is None else ssl.create_default_context(cafile=str(ca_file))
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Say something short."}],
        "max_tokens": 4,
    }
    left = iter(range(requests))

    async def client(http: httpx.AsyncClient) -> None:
        for _ in left:
            answer = await http.post("/v1/chat/completions", json=body, headers=headers)
            if answer.status_code != 200:
                sys.exit(f"{url}: {answer.status_code} {answer.text}")

    limits = httpx.Limits(max_connections=IN_FLIGHT)
    async with httpx.AsyncClient(
        base_url=url, trust_env=False, timeout=60, verify=verify, limits=limits
    ) as http:
        await asyncio.gather(*(client(http) for _ in range(IN_FLIGHT)))


def cost_of_chats(folder: Path, mode: str, requests: int, *, key: str = "") -> Cost:
    """Send chats to the mesh of this state directory, and return what each has cost."""
    record = StateDir(folder).read_record()
    ca_file = folder / "tls" / "ca.crt"
    before, began_s = cpu_seconds(record), time.perf_counter()
    asyncio.run(
        send_chats(
            record.url or "", requests, key=key, ca_file=ca_file if ca_file.exists() else None
        )
    )
    used = difference(before, cpu_seconds(record))
    by_process = {name: round(s / requests * 1000, 3) for name, s in used.items()}
    wall_s = round(time.perf_counter() - began_s, 2)
    return Cost(mode, round(sum(used.values()) / requests * 1000, 3), by_process, wall_s)
