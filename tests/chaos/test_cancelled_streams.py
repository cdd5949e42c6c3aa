"""Cancelled streams hold nothing afterwards. 10,000 of them: benchmarks/cancelled_streams.py."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh
from helpers.held import held, until_released
from helpers.leaving_clients import LeavingClients, Phase

STREAMS = 400
MESH = ("--scripted-step-ms", "5", "--set", "worker.max_slots=16")
RELEASED_WITHIN_S = 60.0


@pytest.mark.timeout(240)
async def test_cancelled_streams_hold_nothing_whenever_and_however_they_are_cancelled(
    tmp_path: Path,
) -> None:
    async with (
        fresh_mesh(tmp_path, *MESH) as mesh,
        grpc.aio.insecure_channel(gateway(mesh)) as channel,
    ):
        clients = LeavingClients(channel, "scripted")
        # What is made once, and stays: connections, the first use of everything.
        await clients.run(48, at_once=48, seed=0)
        record = mesh.state_dir.read_record()
        await eventually(lambda: is_idle(mesh), within_s=RELEASED_WITHIN_S)
        before = await held(record)
        await clients.run(STREAMS, at_once=48, seed=1)
        more = await until_released(record, before, within_s=RELEASED_WITHIN_S)
        assert more == {}
    for phase in Phase:
        assert all(clients.left[f"{phase}, {way}"] > 0 for way in ("by id", "closed"))


def gateway(mesh: FreshMesh) -> str:
    return f"127.0.0.1:{mesh.processes['gateway-0'].ports['grpc']}"


async def is_idle(mesh: FreshMesh) -> bool:
    now = await held(mesh.state_dir.read_record())
    return now["requests stored"] == 0 and now["worker-scripted-0 vllm:num_requests_running"] == 0
