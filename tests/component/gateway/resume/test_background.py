"""Background requests at the gateway that holds them, and a leader that assigns some to it."""

from __future__ import annotations

import asyncio

import pytest

from headrace.bus import Bus
from headrace.errors import GatewayUnreachable, RequestExists
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.v1 import common_pb2
from headrace_gateway.request.generation import ChoiceEnded, Failed, Tokens
from headrace_gateway.shutdown import shut_down
from helpers.eventually import eventually
from helpers.gateway_actors import (
    MODEL,
    RunningMesh,
    leader,
    read,
    running_mesh,
    valid_request,
    worker,
)
from helpers.scripted_keeper import scripted_keeper
from helpers.tiny_tokenizers import byte_level

LENGTH, STOP = common_pb2.FINISH_REASON_LENGTH, common_pb2.FINISH_REASON_STOP


async def begin(gateway: RunningMesh, request_id: str, *stop: str) -> None:
    """Start a background request; it has no client from here on."""
    request = valid_request(request_id, background=True, stop=stop)
    await (await gateway.mesh.admission.open(request)).abandon()


async def kept(bus: Bus, request_id: str) -> ResultRecord | None:
    stored = await bus.get_result(request_id)
    return None if stored is None else ResultRecord.FromString(stored)


def ids_of(text: str) -> list[int]:
    return list(byte_level().encode(text).ids)


async def reassigned(bus: Bus, request_id: str) -> RequestRecord:
    """Return the record of a dead gateway's request, as its leader assigns it to another."""
    async with running_mesh(bus, "gone") as gone:
        await begin(gone, request_id)
        lane = await bus.take_over(MODEL, "standard")
        (pulled,) = await lane.pull(max_messages=1, timeout_s=5.0)
        await lane.close()
    record = RequestRecord.FromString(pulled.payload)
    del record.prompt_ids[:]
    record.attempt = record.held_since_attempt = 5
    record.progress.add(output_ids=ids_of("ab"))
    return record


async def test_it_runs_without_a_reader_and_its_text_is_stored(bus: Bus) -> None:
    async with (
        running_mesh(bus) as gateway,
        worker(gateway.address) as w1,
        leader(bus) as boss,
    ):
        await begin(gateway, "r1")
        ids = ids_of("hello")
        slot = await w1.start("r1", attempt=1)
        await w1.run_on(slot, first=0, ids=ids)
        await w1.end(slot, output_tokens=len(ids))
        await eventually(lambda: boss.has_settled(1))
        result = await kept(bus, "r1")
    assert result is not None
    (choice,) = result.outcome.choices
    assert (choice.text, list(choice.token_ids), choice.finish_reason) == ("hello", ids, LENGTH)
    assert boss.settled[0].code == 0


async def test_a_stop_string_ends_it_without_a_client(bus: Bus) -> None:
    async with (
        running_mesh(bus) as gateway,
        worker(gateway.address) as w1,
        leader(bus) as boss,
    ):
        await begin(gateway, "r1", "lo")
        slot = await w1.start("r1", attempt=1)
        await w1.run_on(slot, first=0, ids=ids_of("hello there"))
        await eventually(lambda: boss.has_settled(1))
        await eventually(lambda: w1.cancelled == [slot])
        result = await kept(bus, "r1")
    assert result is not None
    assert (result.outcome.choices[0].text, result.outcome.choices[0].finish_reason) == (
        "hel",
        STOP,
    )


async def test_its_readers_may_leave_at_any_time(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address) as w1:
        await begin(gateway, "r1")
        for _ in range(3):
            await gateway.open_request("r1").reader().abandon()
        reader = gateway.open_request("r1").reader()
        slot = await w1.start("r1", attempt=1)
        await w1.run_on(slot, first=0, ids=[70])
        await w1.end(slot, output_tokens=1)
        assert await read(reader) == [Tokens(0, 0, [70]), ChoiceEnded(0, LENGTH)]


async def test_a_reassigned_request_continues_from_its_known_output(bus: Bus) -> None:
    record = await reassigned(bus, "r1")
    async with (
        running_mesh(bus) as gateway,
        worker(gateway.address) as w1,
        leader(bus) as boss,
    ):
        answer = await boss.notify(reassigned=[record])
        (point,) = answer.points
        assert (point.request_id, list(point.progress[0].output_ids)) == ("r1", ids_of("ab"))
        again = await boss.notify(reassigned=[record])
        assert len(again.points) == 1, "the first answer may have got lost"
        slot = await w1.start("r1", attempt=6)
        await w1.run_on(slot, first=2, ids=ids_of("c"))
        await w1.end(slot, output_tokens=3)
        await eventually(lambda: boss.has_settled(1))
        result = await kept(bus, "r1")
    assert boss.settled[0].held_since_attempt == 5
    assert result is not None
    assert result.outcome.choices[0].text == "abc"


async def test_a_reservation_is_confirmed_by_the_gateway_that_continues_its_request(
    bus: Bus,
) -> None:
    record = await reassigned(bus, "r1")
    record.reservation_id = "r1.0f"
    async with scripted_keeper(bus) as keeper, running_mesh(bus), leader(bus) as boss:
        await boss.notify(reassigned=[record])
        await eventually(lambda: keeper.confirmed == ["r1.0f"])


async def test_a_draining_gateway_takes_nothing_over(bus: Bus) -> None:
    record = await reassigned(bus, "r1")
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        await gateway.mesh.drain()
        answer = await boss.notify(reassigned=[record])
    assert list(answer.unknown_request_ids) == ["r1"]
    assert list(answer.points) == []


async def test_one_with_a_stored_result_is_settled_and_not_run_again(bus: Bus) -> None:
    record = await reassigned(bus, "r1")
    outcome = common_pb2.RequestOutcome(usage=common_pb2.Usage(output_tokens=7))
    stored = ResultRecord(request_id="r1", model=MODEL, outcome=outcome, request=record)
    await bus.put_result("r1", stored.SerializeToString())
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        answer = await boss.notify(reassigned=[record])
        assert (list(answer.points), list(answer.unknown_request_ids)) == ([], [])
        await eventually(lambda: boss.has_settled(1))
        (settlement,) = boss.settled
        assert (settlement.output_tokens, settlement.held_since_attempt) == (7, 5)
        assert gateway.mesh.requests.find("r1") is None
        await eventually(lambda: len(gateway.mesh.settlements) == 0)
        record.arrival.seconds += 1
        answer = await boss.notify(reassigned=[record])
        assert len(answer.points) == 1, "an earlier request had its name"


@pytest.mark.parametrize("error", [GatewayUnreachable("moved"), RequestExists("namesake")])
async def test_a_request_of_another_gateway_is_neither_settled_nor_stored_here(
    bus: Bus, error: GatewayUnreachable | RequestExists
) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        await begin(gateway, "r1")
        reader = gateway.open_request("r1").reader()
        await boss.notify(ended={"r1": error})
        (failed,) = await read(reader)
        assert isinstance(failed, Failed)
        assert type(failed.error) is type(error)
        await reader.abandon()
        assert len(gateway.mesh.requests) == len(gateway.mesh.settlements) == 0
        await begin(gateway, "r2")
        await gateway.open_request("r2").reader().settle(common_pb2.RequestOutcome())
        await eventually(lambda: boss.has_settled(1))
        assert boss.settled[0].request_id == "r2"
        assert await kept(bus, "r1") is None


async def test_a_gateway_that_shuts_down_does_not_wait_for_them_and_ends_none(bus: Bus) -> None:
    async with (
        running_mesh(bus, lame_duck_s=0.0, drain_s=600.0, settle_s=0.0) as gateway,
        leader(bus) as boss,
    ):
        mesh = gateway.mesh
        await begin(gateway, "r1")
        async with asyncio.timeout(60):
            await shut_down(mesh)
        assert len(mesh.requests) == len(mesh.settlements) == 0
        assert boss.settled == []
        assert await kept(bus, "r1") is None
