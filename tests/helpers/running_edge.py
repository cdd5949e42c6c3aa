"""A real Envoy with the shipped configuration, for the length of a `with`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from headrace.supervisor.child import Child
from headrace.supervisor.servers.envoy import Edge, EdgeOptions
from headrace.supervisor.servers.local_replies import Timeouts

START_S = 20.0


@dataclass
class RunningEdge:
    edge: Edge
    url: str
    admin_url: str
    logs: Path


async def counted(edge: RunningEdge, name: str) -> int:
    """A counter of Envoy's public listener, by its short name."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{edge.admin_url}/stats?filter=^http.edge.{name}$&format=json")
    return int(answer.json()["stats"][0]["value"])


async def until(url: str, *, status: int = 200) -> None:
    """Retry until the answer has this status."""
    async with asyncio.timeout(START_S), httpx.AsyncClient(trust_env=False) as http:
        while (await http.get(url)).status_code != status:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running_edge(
    folder: Path,
    *,
    port: int = 0,
    timeouts: Timeouts | None = None,
    proof: str = "",
    **options: Any,
) -> AsyncIterator[RunningEdge]:
    chosen = EdgeOptions(port=port, timeouts=timeouts or Timeouts(), **options)
    edge = Edge(folder / "edge", folder / "logs", chosen, proof=proof)
    edge.prepare()
    log = folder / "logs" / "envoy.log"
    child = await Child.start(edge.argv(), log=log, folder=folder)
    try:
        async with asyncio.timeout(START_S):
            while (ports := await edge.read_ports(child.pid)) is None:
                assert child.running, log.read_text()
                await asyncio.sleep(0.02)
        yield RunningEdge(
            edge,
            f"http://127.0.0.1:{ports['http']}",
            f"http://127.0.0.1:{ports['admin']}",
            folder / "logs",
        )
    finally:
        await child.stop(deadline_s=5)
