"""The gateway's mesh side and the schedulers: settling, notices, admission, locating."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from headrace.bus import Bus, subjects
from headrace.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    GatewayDraining,
    GatewayUnreachable,
    LaneFull,
    NoWorker,
    RequestCancelled,
    RequestExists,
    RequestNotFound,
)
from headrace.internal.v1.reports_pb2 import LocateRequest, LocateResponse, ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.testing.nats_server import NatsServer
from headrace.v1 import common_pb2, requests_pb2
from headrace_gateway.base.generated_ids import draw_id, with_lane
from headrace_gateway.request.generation import ChoiceEnded, Failed, Tokens
from helpers.eventually import eventually
from helpers.gateway_actors import (
    MODEL,
    RunningMesh,
    leader,
    read,
    read_some,
    running_mesh,
    valid_request,
    worker,
)

LENGTH = common_pb2.FINISH_REASON_LENGTH


async def status(gateway: RunningMesh, request_id: str) -> requests_pb2.Request:
    return (await gateway.mesh.directory.locate(request_id)).status()


async def cancel(gateway: RunningMesh, request_id: str) -> requests_pb2.Request:
    location = await gateway.mesh.directory.locate(request_id, LocateRequest.VERB_CANCEL)
    return location.status()


async def test_settling_is_repeated_until_a_leader_answers_and_coalesces_meanwhile(
    bus: Bus,
) -> None:
    async with running_mesh(bus) as gateway:
        for number in range(20):
            generation = await gateway.open(f"r{number}")
            usage = common_pb2.Usage(prompt_tokens=3, output_tokens=number)
            await generation.settle(common_pb2.RequestOutcome(usage=usage))
        assert len(gateway.mesh.requests) == 0
        assert len(gateway.mesh.settlements) == 20
        async with leader(bus) as boss:
            await eventually(lambda: len(gateway.mesh.settlements) == 0)
            assert {s.request_id: s.output_tokens for s in boss.settled} == {
                f"r{n}": n for n in range(20)
            }
            assert boss.settle_messages < 5


async def test_the_outcome_is_stored_as_a_result(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        generation = await gateway.open("r1")
        choice = common_pb2.Choice(text="hi", token_ids=[7], finish_reason=LENGTH)
        await generation.settle(common_pb2.RequestOutcome(choices=[choice]))
        await eventually(lambda: len(boss.settled) == 1)
        stored = await bus.get_result("r1")
        assert stored is not None
        record = ResultRecord.FromString(stored)
        assert (record.model, record.outcome.choices[0].text) == (MODEL, "hi")


async def test_a_result_keeps_its_logprobs_where_they_fit_a_message_of_the_broker(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        for request_id, tokens in (("small", 10), ("large", 200_000)):
            generation = await gateway.open(request_id)
            choice = common_pb2.Choice(
                text="said", logprobs=common_pb2.Logprobs(logprobs=[-1.0] * tokens)
            )
            await generation.settle(common_pb2.RequestOutcome(choices=[choice]))
        await eventually(lambda: boss.has_settled(2))
        stored = [await bus.get_result(request_id) for request_id in ("small", "large")]
    kept = [ResultRecord.FromString(each or b"").outcome.choices[0] for each in stored]
    assert [choice.text for choice in kept] == ["said", "said"]
    assert [len(choice.logprobs.logprobs) for choice in kept] == [10, 0]


async def test_a_notice_of_an_end_without_a_worker_reaches_the_reader(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        generation = await gateway.open("r1")
        answer = await boss.notify(ended={"r1": NoWorker("none came"), "other": NoWorker("none")})
        assert list(answer.unknown_request_ids) == ["other"]
        (failed,) = await read(generation)
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, NoWorker)


async def test_a_fence_answers_where_the_request_stands_and_stops_the_old_attempt(
    bus: Bus,
) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss, worker(gateway.address) as w1:
        generation = await gateway.open("r1")
        slot = await w1.start("r1", attempt=1)
        await w1.run_on(slot, first=0, ids=[7, 8])
        assert await read_some(generation, tokens=2) == [7, 8]
        answer = await boss.notify(fences={"r1": 1, "other": 3})
        assert list(answer.unknown_request_ids) == ["other"]
        (point,) = answer.points
        assert (point.attempt, list(point.progress[0].output_ids)) == (1, [7, 8])
        await eventually(lambda: w1.cancelled == [slot])


async def test_a_request_that_is_being_settled_is_not_unknown_to_its_leader(bus: Bus) -> None:
    async with running_mesh(bus) as gateway:
        generation = await gateway.open("r1")
        await generation.settle(common_pb2.RequestOutcome())
        async with leader(bus) as boss:
            await eventually(lambda: len(boss.settled) == 1)
            assert list((await boss.notify(fences={"r1": 1})).unknown_request_ids) == ["r1"]


async def test_an_unknown_generated_id_is_looked_up_at_the_leader_that_it_names_only(
    bus: Bus,
) -> None:
    drawn = draw_id(20 * "a")
    async with running_mesh(bus) as gateway, leader(bus):
        # Of "orphan" no leader answers, so whether it has a request is not known.
        with pytest.raises(GatewayUnreachable):
            await status(gateway, "their-own")
        with pytest.raises(RequestNotFound):
            await status(gateway, with_lane(MODEL, drawn))
        with pytest.raises(GatewayUnreachable):
            await cancel(gateway, with_lane("orphan", drawn))


async def test_an_id_that_is_open_is_refused(bus: Bus) -> None:
    async with running_mesh(bus) as gateway:
        await gateway.open("r1")
        with pytest.raises(RequestExists):
            await gateway.open("r1")


async def test_an_id_may_be_used_again_once_its_request_has_ended(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        for times in (1, 2):
            generation = await gateway.open("r1")
            await generation.settle(common_pb2.RequestOutcome())
            await eventually(partial(boss.has_settled, times))
        lane = await bus.take_over(MODEL, "standard")
        assert len(await lane.pull(max_messages=8, timeout_s=2.0)) == 2


async def test_an_id_that_is_used_again_at_once_waits_for_the_end_before_it(bus: Bus) -> None:
    """A client that has the whole answer cannot know that it is still to be settled."""
    async with running_mesh(bus) as gateway:
        first = await gateway.open("r1")
        await first.settle(common_pb2.RequestOutcome())
        again = asyncio.create_task(gateway.open("r1"))
        async with leader(bus) as boss:
            await again
            assert len(boss.settled) == 1


async def test_without_a_broker_nothing_is_admitted_and_nothing_is_held(
    bus: Bus, nats: NatsServer
) -> None:
    async with running_mesh(bus, submit_timeout_s=0.5) as gateway:
        await nats.kill()
        with pytest.raises(BrokerUnavailable):
            await gateway.open("r1")
        assert len(gateway.mesh.requests) == 0
        await nats.start()


async def test_a_broker_that_dies_costs_a_running_stream_nothing_and_it_is_settled_later(
    bus: Bus, nats: NatsServer
) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address) as w1:
        generation = await gateway.open("r1")
        slot = await w1.start("r1", attempt=1)
        await w1.run_on(slot, first=0, ids=[7])
        assert await read_some(generation, tokens=1) == [7]
        await nats.kill()
        await w1.run_on(slot, first=1, ids=[8])
        await w1.end(slot, output_tokens=2)
        assert await read(generation) == [Tokens(0, 1, [8]), ChoiceEnded(0, LENGTH)]
        await generation.settle(common_pb2.RequestOutcome())
        await nats.start()
        async with leader(bus) as boss:
            await eventually(partial(boss.has_settled, 1), within_s=15.0)
            assert await bus.get_result("r1") is not None


async def test_no_client_hangs_even_without_a_scheduler_or_worker(bus: Bus) -> None:
    async with running_mesh(bus, deadline_slack_s=0.0) as gateway:
        generation = await gateway.mesh.admission.open(valid_request("r1", timeout_s=0.1))
        (failed,) = await read(generation)
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, DeadlineExceeded)


async def test_a_draining_gateway_admits_nothing_and_its_streams_go_on(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address) as w1:
        generation = await gateway.open("r1")
        gateway.mesh.admission.drain()
        with pytest.raises(GatewayDraining):
            await gateway.open("r2")
        slot = await w1.start("r1", attempt=1)
        await w1.run_on(slot, first=0, ids=[7])
        await w1.end(slot, output_tokens=1)
        assert await read(generation) == [Tokens(0, 0, [7]), ChoiceEnded(0, LENGTH)]


async def test_a_stream_that_breaks_the_protocol_ends_and_costs_others_nothing(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address, "w2") as good:
        generation = await gateway.open("r1")
        async with worker(gateway.address, "") as bad:
            await bad.send()
            await eventually(lambda: bad.is_closed)
        slot = await good.start("r1", attempt=1)
        await good.end(slot, output_tokens=0)
        assert await read(generation) == [ChoiceEnded(0, LENGTH)]


async def test_a_request_of_another_gateway_is_found_through_its_leader(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        boss.knows["far"] = LocateResponse(
            found=True,
            record=RequestRecord(model=MODEL, attempt=7),
            running=True,
            worker_name="w9",
        )
        found = await status(gateway, "far")
        assert (found.state, found.attempt) == (requests_pb2.REQUEST_STATE_RUNNING, 7)
        assert found.worker == "w9"
        assert boss.cancelled == []
        boss.knows["far"].running, boss.knows["far"].waits_for_quota = False, True
        assert (await status(gateway, "far")).state == requests_pb2.REQUEST_STATE_PAUSED
        await cancel(gateway, "far")
        assert boss.cancelled == ["far"]


async def test_a_request_that_is_open_here_is_located_with_or_without_its_leader(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, worker(gateway.address) as w1:
        await gateway.open("r1")
        found = await status(gateway, "r1")
        assert (found.state, found.model) == (requests_pb2.REQUEST_STATE_WAITING, MODEL)
        await w1.start("r1", attempt=3)
        await eventually(lambda: gateway.open_request("r1").output.newest_attempt == 3)
        async with leader(bus) as boss:
            boss.knows["r1"] = LocateResponse(
                found=True,
                record=RequestRecord(model=MODEL, attempt=3),
                running=True,
                worker_name="w1",
            )
            found = await status(gateway, "r1")
            assert (found.state, found.worker) == (requests_pb2.REQUEST_STATE_RUNNING, "w1")


async def test_an_ended_request_is_found_before_and_after_it_is_settled(bus: Bus) -> None:
    async with running_mesh(bus) as gateway:
        generation = await gateway.open("r1")
        await generation.abandon()
        found = await status(gateway, "r1")
        assert found.outcome.error.code == RequestCancelled.code.number
        async with leader(bus):
            await eventually(lambda: len(gateway.mesh.settlements) == 0)
        found = await cancel(gateway, "r1")
        assert found.state == requests_pb2.REQUEST_STATE_ENDED


async def test_a_request_that_no_leader_knows_is_not_found(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus), leader(bus, "orphan") as other:
        with pytest.raises(RequestNotFound):
            await status(gateway, "nobody")
        other.knows["nobody"] = LocateResponse(pending=True)
        with pytest.raises(GatewayUnreachable):
            await status(gateway, "nobody")


async def test_while_a_leader_is_away_a_request_is_unreachable_and_not_unknown(
    bus: Bus,
) -> None:
    async with running_mesh(bus) as gateway, leader(bus):
        with pytest.raises(GatewayUnreachable):
            await status(gateway, "nobody")


async def test_a_full_lane_is_refused_by_its_leaders_report_and_only_that_lane(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        await boss.report(waiting=1, max_waiting=2)
        await eventually(lambda: len(list(gateway.lanes())) == 1)
        results = await asyncio.gather(
            *(gateway.open(f"r{n}") for n in range(5)), return_exceptions=True
        )
        assert sum(isinstance(result, LaneFull) for result in results) == 4
        assert len(gateway.mesh.requests) == 1
        await gateway.mesh.admission.open(valid_request("b1", priority=common_pb2.PRIORITY_BULK))


async def test_a_report_that_cannot_be_read_costs_nothing(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        await bus.publish(subjects.LANE_REPORTS, b"\xff\xff")
        await boss.report(waiting=1, max_waiting=2)
        await eventually(lambda: len(list(gateway.lanes())) == 1)
