"""Counts of what the processes of a mesh hold, to check that it is released."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.state.state_dir import MeshRecord, ProcessRecord

_OWN = {
    Role.GATEWAY: ("headrace_gateway_open_requests", "headrace_gateway_unsettled_requests"),
    Role.WORKER: ("vllm:num_requests_running", "vllm:kv_cache_usage_perc"),
}


async def held(record: MeshRecord) -> dict[str, float]:
    """Tasks, file descriptors, slots, cache, the broker's consumers and messages, by name."""
    found: dict[str, float] = {}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        for process in record.processes:
            found[f"{process.name} fds"] = psutil.Process(process.pid).num_fds()
            if process.role == Role.NATS:
                found |= await _of_broker(http, process)
            elif process.role != Role.ENVOY:
                found |= await _of_service(http, process)
    return found


async def _of_service(http: httpx.AsyncClient, process: ProcessRecord) -> dict[str, float]:
    text = (await http.get(f"http://127.0.0.1:{process.ports['metrics']}/metrics")).text
    requested = ("headrace_event_loop_tasks", *_OWN.get(Role(process.role), ()))
    found = dict.fromkeys((f"{process.name} {name}" for name in requested), 0.0)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in requested:
                found[f"{process.name} {sample.name}"] += sample.value
    return found


async def _of_broker(http: httpx.AsyncClient, process: ProcessRecord) -> dict[str, float]:
    """Results are kept for ten minutes, whatever became of the request: they are not counted."""

    async def read(what: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{process.ports['http']}/{what}"
        answer: dict[str, Any] = (await http.get(url)).json()
        return answer

    jetstream = await read("jsz?streams=true")
    (account,) = jetstream["account_details"]
    stored = {each["name"]: each["state"] for each in account["stream_detail"]}
    return {
        "nats connections": (await read("varz"))["connections"],
        "nats subscriptions": (await read("subsz"))["num_subscriptions"],
        "nats consumers": jetstream["consumers"],
        "nats streams": jetstream["streams"],
        "requests stored": stored["REQUESTS"]["messages"],
        "keys": sum(state["messages"] for name, state in stored.items() if name.startswith("KV_")),
    }


def resident_bytes(record: MeshRecord) -> dict[str, int]:
    """Of our own processes."""
    ours = (p for p in record.processes if p.role in (Role.GATEWAY, Role.SCHEDULER, Role.WORKER))
    return {p.name: psutil.Process(p.pid).memory_info().rss for p in ours}


async def until_released(
    record: MeshRecord, before: dict[str, float], *, within_s: float
) -> dict[str, tuple[float, float]]:
    """Wait until no count is above `before`; return those that still are, with both counts."""
    end_s = time.monotonic() + within_s
    while True:
        now = await held(record)
        more = {name: (before[name], now[name]) for name in before if now[name] > before[name]}
        if not more or time.monotonic() > end_s:
            return more
        await asyncio.sleep(0.2)
