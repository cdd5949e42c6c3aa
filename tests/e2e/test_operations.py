"""What operators do to a mesh that serves, from a machine that is not the mesh's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.bus import Bus, connect
from headrace.client import AsyncClient
from headrace.internal.v1.reports_pb2 import DeadLetter
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord
from headrace.v1 import common_pb2, generation_pb2
from headrace.v1.generation_pb2_grpc import GenerationServiceStub
from helpers.command import Ran, headrace
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh

TOKENS = 150
KNOWN = 40
STREAMS = 8
FAILS = 299
WORKER = "worker-scripted-0"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[FreshMesh]:
    fails = ("--set", f"worker.scripted_fail_token={FAILS}")
    options = ("--scripted-step-ms", "20", "--workers", "2", *fails)
    async with fresh_mesh(tmp_path / "mesh", *options) as running:

        async def is_administered() -> bool:
            return (await elsewhere(running, "fleet")).status == 0

        # Without keys a mesh is ready, because it generates, before it is administered.
        await eventually(is_administered, within_s=30)
        yield running


async def elsewhere(mesh: FreshMesh, *arguments: str) -> Ran:
    """Run a command where there is no state directory."""
    folder = mesh.folder.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    return await headrace(*arguments, "--url", mesh.url, folder=folder)


async def listed(mesh: FreshMesh) -> dict[str, dict[str, Any]]:
    ran = await elsewhere(mesh, "requests", "--json")
    assert ran.status == 0, ran.err
    return {each["request"]: each for each in json.loads(ran.out)}


def request(
    request_id: str, prompt_ids: list[int], *, tokens: int = TOKENS
) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(
        model="scripted",
        prompt_token_ids=prompt_ids,
        seed=3,
        request_id=request_id,
        parameters=common_pb2.SamplingParameters(
            max_tokens=tokens, temperature=1.0, ignore_eos=True
        ),
    )


async def streamed(
    mesh: FreshMesh, wanted: generation_pb2.GenerateRequest
) -> tuple[list[int], generation_pb2.Finish]:
    ids: list[int] = []
    finish = generation_pb2.Finish()
    async with grpc.aio.insecure_channel(mesh.url.removeprefix("http://")) as channel:
        async for event in GenerationServiceStub(channel).StreamGenerate(wanted):
            assert not event.delta.token_ids or event.delta.first_index == len(ids)
            ids += event.delta.token_ids
            finish = event.finish
    return ids, finish


async def test_a_running_stream_is_listed_and_cancelled(mesh: FreshMesh) -> None:
    stream = asyncio.create_task(streamed(mesh, request("long", [5, 6, 7], tokens=2000)))

    async def runs() -> bool:
        return (await listed(mesh)).get("long", {}).get("state") == "running"

    await eventually(runs, within_s=20)
    assert (await listed(mesh))["long"]["worker"].startswith("worker-scripted-")
    ran = await elsewhere(mesh, "requests", "cancel", "long")
    assert "long is cancelled; it was running" in ran.out
    ids, finish = await stream
    assert 0 < len(ids) < 2000
    assert finish.error.code == grpc.StatusCode.CANCELLED.value[0]
    assert "long" not in await listed(mesh)
    again = await elsewhere(mesh, "requests", "cancel", "long")
    assert "long had ended before" in again.out
    unknown = await elsewhere(mesh, "requests", "cancel", "other")
    assert unknown.status == 2
    assert "request other not found" in unknown.err
    audited = json.loads((await elsewhere(mesh, "audit", "list", "--json")).out)
    assert [(e["action"], e["resource"]) for e in audited if e["action"] == "requests.cancel"] == [
        ("requests.cancel", "tenants/default/requests/long")
    ]


async def test_a_worker_is_drained_while_streaming_stays_stopped_and_comes_back(
    mesh: FreshMesh,
) -> None:
    streams = asyncio.gather(
        *(streamed(mesh, request(f"s{n}", [5, 6, n], tokens=300)) for n in range(STREAMS))
    )
    async with AsyncClient(mesh.url) as client:

        async def both_run() -> bool:
            return all(worker.running for worker in await client.workers())

        await eventually(both_run, within_s=20)
    fleet = json.loads((await elsewhere(mesh, "fleet", "--json")).out)
    assert {worker["name"] for worker in fleet["workers"]} == {WORKER, "worker-scripted-1"}
    assert {lane["model"] for lane in fleet["lanes"]} == {"scripted"}

    ran = await elsewhere(mesh, "drain", WORKER, "--grace", "0.2")
    assert ran.status == 0, ran.err
    assert "does not start it again before --undo" in ran.out
    for ids, finish in await streams:
        assert not finish.HasField("error"), finish
        assert len(ids) == 300
    await eventually(lambda: mesh.processes[WORKER].drained, within_s=20)
    again = await elsewhere(mesh, "drain", WORKER)
    assert "is drained already" in again.out

    back = await elsewhere(mesh, "drain", WORKER, "--undo")
    assert f"{WORKER} is started again" in back.out
    await eventually(lambda: mesh.processes[WORKER].pid is not None, within_s=20)
    assert not mesh.processes[WORKER].drained
    nothing = await elsewhere(mesh, "drain", WORKER, "--undo")
    assert (nothing.status, "nothing to undo" in nothing.err) == (2, True)
    unknown = await elsewhere(mesh, "drain", "other")
    assert "no process named other is connected" in unknown.err


async def store_failed(bus: Bus, mesh: FreshMesh, output_ids: list[int]) -> None:
    """Store the dead letter of a request that would not fail now, with this output so far."""
    (stored,) = await bus.dead_letters(limit=1)
    letter = DeadLetter.FromString(stored.letter)
    record = RequestRecord.FromString(letter.message)
    record.request_id = "healthy"
    record.prompt_ids[:] = [5, 6, 7]
    record.progress.append(ChoiceProgress(output_ids=output_ids))
    letter.message = record.SerializeToString()
    await bus.store_dead_letter("scripted", letter.SerializeToString())


async def test_a_dead_letter_goes_on_from_its_output_as_often_as_it_is_resent_once(
    mesh: FreshMesh,
) -> None:
    expected, _ = await streamed(mesh, request("before", [5, 6, 7]))
    ids, finish = await streamed(mesh, request("fails", [5, FAILS]))
    assert (ids, finish.HasField("error")) == ([], True)
    broker = f"nats://127.0.0.1:{mesh.processes['nats'].ports['nats']}"
    bus = await connect(broker, name="test", replicas=None)
    await store_failed(bus, mesh, expected[:KNOWN])
    await bus.close()

    rows = json.loads((await elsewhere(mesh, "dead-letters", "--json")).out)
    assert [(row["number"], row["request_id"]) for row in rows] == [(2, "healthy"), (1, "fails")]
    for _ in range(2):
        ran = await elsewhere(mesh, "dead-letters", "resend", "2")
        assert ran.status == 0, ran.err
        assert "healthy-resent-2 runs in the background" in ran.out
    async with AsyncClient(mesh.url) as client:
        answer = await client.background_request("healthy-resent-2").result(timeout_s=60)
        assert list(answer.choices[0].token_ids) == expected

    ran = await elsewhere(mesh, "dead-letters", "resend", "1")
    assert ran.status == 0, ran.err

    async def failed_again() -> bool:
        shown = await headrace("dead-letters", "--json", folder=mesh.folder)
        newest = json.loads(shown.out)[0]
        return bool(newest["request_id"] == "fails-resent-1")

    await eventually(failed_again, within_s=30)
