"""How soon a revoked key and an ended session are refused by every one of eight gateways.

Each round makes a key and a session, sees that every gateway accepts both, ends them through
control's API, and asks every gateway, without a pause, until it refuses. The time is from the call
that ends them, whose answer is part of it. In the middle the broker is killed; its supervisor
starts it again.

python benchmarks/revocation.py --json benchmarks/results/revocation.json
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import grpc
import httpx

import rig
from headrace.bench.figures import Spread, spread
from headrace.supervisor.state.state_dir import MeshRecord, StateDir
from headrace.v1.models_pb2 import ListModelsRequest
from headrace.v1.models_pb2_grpc import ModelServiceStub

GATEWAYS = 8
ROUNDS = 100
LIMIT_S = 1.0
GIVEN_UP_S = 20.0

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Ended:
    what: str
    gateways: int
    rounds: int
    refused_in_time: int
    """Of rounds times gateways."""
    seconds: Spread
    broker_killed_after_round: int


async def is_accepted(gateway: ModelServiceStub, metadata: Metadata) -> bool:
    try:
        await gateway.ListModels(ListModelsRequest(), metadata=metadata, timeout=5)  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return False
        raise
    return True


async def until(gateway: ModelServiceStub, metadata: Metadata, *, accepted: bool) -> float:
    """Return when the gateway first answered so."""
    async with asyncio.timeout(GIVEN_UP_S):
        while await is_accepted(gateway, metadata) != accepted:
            await asyncio.sleep(0.001)
    return time.perf_counter()


async def times_s(
    gateways: list[ModelServiceStub], metadata: Metadata, end: Callable[[], Awaitable[None]]
) -> list[float]:
    """Return for each gateway how long after `end` was called it first refused."""
    await asyncio.gather(*(until(each, metadata, accepted=True) for each in gateways))
    began_s = time.perf_counter()
    waits = [asyncio.create_task(until(each, metadata, accepted=False)) for each in gateways]
    await end()
    return [await wait - began_s for wait in waits]


class Administration:
    """The mesh's administration API, as its operator."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self._http, self._headers = http, {"authorization": f"Bearer {key}"}

    async def key(self) -> tuple[str, str]:
        """Make a key; return its name and itself."""
        body = {"scopes": ["models:read"], "models": ["*"]}
        made = await self._post("tenants/bench/keys", body)
        return made["key"]["name"], made["secret"]

    async def revoke(self, name: str) -> None:
        await self._post(f"{name}:revoke", {})

    async def session(self, key: str) -> tuple[str, str]:
        """Sign in with a key; return the session's name and its cookie."""
        answer = await self._http.post("/v2/admin/sessions", json={"key": key})
        answer.raise_for_status()
        cookie = SimpleCookie(answer.headers["set-cookie"])["headrace_session"].value
        return answer.json()["name"], f"headrace_session={cookie}"

    async def sign_out(self, name: str) -> None:
        (await self._http.delete(f"/v2/admin/{name}", headers=self._headers)).raise_for_status()

    async def _post(self, path: str, body: Mapping[str, object]) -> Any:
        answer = await self._http.post(f"/v2/admin/{path}", json=body, headers=self._headers)
        answer.raise_for_status()
        return answer.json()


async def kill_broker(state_dir: StateDir) -> None:
    """Kill nats-server, and wait until it has been started again."""
    before = state_dir.read_process("nats")
    os.kill(before.pid or 0, signal.SIGKILL)
    while (now := state_dir.read_process("nats")).pid in (None, before.pid) or not now.ports:
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def channels(record: MeshRecord) -> AsyncIterator[list[ModelServiceStub]]:
    ports = [p.ports["grpc"] for p in record.processes if p.role == "gateway"]
    opened = [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for port in ports]
    yield [ModelServiceStub(channel) for channel in opened]
    for channel in opened:
        await channel.close()


async def measure(folder: Path, *, rounds: int) -> list[Ended]:
    state_dir = StateDir(folder)
    record = state_dir.read_record()
    admin_key = (folder / "admin.key").read_text().strip()
    edge = (folder / "secrets" / "edge").read_text().strip()
    of_keys, of_sessions = list[float](), list[float]()
    async with (
        httpx.AsyncClient(base_url=record.url or "", trust_env=False, timeout=20) as http,
        channels(record) as gateways,
    ):
        administration = Administration(http, admin_key)
        for number in range(rounds):
            if number == rounds // 2:
                await kill_broker(state_dir)
            name, key = await administration.key()
            other_name, other_key = await administration.key()
            session, cookie = await administration.session(other_key)
            by_key: Metadata = (("authorization", f"Bearer {key}"),)
            by_cookie: Metadata = (
                ("cookie", cookie),
                ("x-hr-edge", edge),
                ("x-hr-same-origin", "1"),
            )
            of_keys += await times_s(gateways, by_key, partial(administration.revoke, name))
            of_sessions += await times_s(
                gateways, by_cookie, partial(administration.sign_out, session)
            )
            await administration.revoke(other_name)
    found = (("keys revoked", of_keys), ("sessions ended", of_sessions))
    return [_ended(what, seconds, rounds) for what, seconds in found]


def _ended(what: str, seconds: list[float], rounds: int) -> Ended:
    in_time = sum(each < LIMIT_S for each in seconds)
    return Ended(what, GATEWAYS, rounds, in_time, spread(seconds), rounds // 2)


def main() -> None:
    parser = rig.options(__doc__ or "")
    parser.set_defaults(rounds=ROUNDS)
    arguments = parser.parse_args()
    before = rig.facts()
    # Without the limit: asking until it is refused is what this does.
    unlimited = ("--set", "gateway.failed_attempts_per_minute=1000000")
    up = ("--engine", "scripted", "--gateways", str(GATEWAYS), "--auth", "keys", *unlimited)
    with rig.mesh_in_folder(*up) as folder:
        found = asyncio.run(measure(folder, rounds=arguments.rounds))
    rows = [
        (
            each.what,
            f"{each.refused_in_time} of {each.rounds * each.gateways}",
            f"{each.seconds.p50_ms:.1f} ms",
            f"{each.seconds.p99_ms:.1f} ms",
        )
        for each in found
    ]
    rig.show(("", f"refused within {LIMIT_S:g} s", "p50", "p99"), rows)
    rig.keep(arguments.json, before, {"limit_s": LIMIT_S, "ended": [asdict(e) for e in found]})


if __name__ == "__main__":
    main()
