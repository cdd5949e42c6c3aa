"""A worker and its gateways: what is sent again, and when a gateway is given up."""

from __future__ import annotations

from headrace.internal.v1.reports_pb2 import ParkCause
from headrace.v1.common_pb2 import FinishReason
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor, gateway, has_tokens
from helpers.worker_actors import (
    ENDLESS,
    SchedulerActor,
    record,
    undisturbed,
    worker_here,
)


async def test_a_broken_stream_is_opened_again_and_all_that_is_unacknowledged_is_sent_again(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    gw.acknowledges = False
    async with worker_here(nats_url):
        ended, runs = record("a", gw, max_tokens=10), record("b", gw, max_tokens=600)
        await scheduler.dispatch(await scheduler.first_worker(), ended, runs)
        await eventually(lambda: gw.said("a").has_ended)
        await has_tokens(gw, "b", 30)
        gw.break_streams()
        await eventually(lambda: gw.streams == 2 and len(gw.said("a").endings) == 2)
        await eventually(lambda: gw.said("b").has_ended)
        for request in (ended, runs):
            said = gw.said(request.request_id)
            assert said.openings == 2
            assert said.token_ids == undisturbed(request)
        first, second = gw.said("a").endings
        assert first.output_tokens == second.output_tokens == 10
        gw.acknowledge_all()


async def test_what_is_acknowledged_is_not_sent_again(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw), record("b", gw, max_tokens=ENDLESS))
        await eventually(lambda: gw.said("a").has_ended)
        gw.break_streams()
        await eventually(lambda: gw.said("b").openings == 2)
        assert gw.said("a").openings == 1


async def test_a_gateway_that_comes_back_in_time_receives_everything(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url):
        request = record("a", gw, max_tokens=1000)
        await scheduler.dispatch(await scheduler.first_worker(), request)
        await has_tokens(gw, "a", 5)
        await gw.stop()
        await gw.start()
        await eventually(lambda: gw.said("a").has_ended, within_s=10)
        assert gw.said("a").token_ids == undisturbed(request)
        assert scheduler.parked == []


async def test_requests_of_a_gateway_out_of_reach_are_parked_until_the_leader_answers(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    scheduler.answers_parks = False
    async with gateway("other") as other, worker_here(nats_url, orphan_grace_s=0.2) as worker:
        worker_id = await scheduler.first_worker()
        request = record("a", gw, attempt=3, max_tokens=ENDLESS)
        undisturbed_one = record("b", other, max_tokens=1000)
        await scheduler.dispatch(worker_id, request, undisturbed_one)
        await has_tokens(gw, "a", 5, attempt=3)
        await gw.stop()
        await eventually(lambda: scheduler.park_requests >= 2, within_s=15)
        scheduler.answers_parks = True
        await eventually(lambda: bool(scheduler.parked))
        (point,) = scheduler.parked
        assert (point.request_id, point.attempt) == ("a", 3)
        assert point.cause == ParkCause.PARK_CAUSE_ORPHANED
        (progress,) = point.progress
        received = gw.said("a", attempt=3).token_ids
        assert list(progress.output_ids)[: len(received)] == received
        assert progress.finish_reason == FinishReason.FINISH_REASON_UNSPECIFIED
        await eventually(lambda: "a" not in scheduler.running)
        await eventually(lambda: other.said("b").has_ended)
        assert other.said("b").token_ids == undisturbed(undisturbed_one)
        worker.check_integrity()


async def test_an_ended_request_whose_gateway_never_comes_back_is_not_kept_for_ever(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    gw.acknowledges = False
    async with worker_here(nats_url, orphan_grace_s=0.2) as worker:
        await scheduler.dispatch(await scheduler.first_worker(), record("a", gw))
        await eventually(lambda: gw.said("a").has_ended)
        assert not worker.is_idle
        await gw.stop()
        await eventually(lambda: worker.is_idle, within_s=10)
        assert scheduler.parked == []


async def test_a_listener_that_is_no_gateway_counts_as_out_of_reach(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    gw.hangs_up = True
    async with worker_here(nats_url, orphan_grace_s=0.5):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, max_tokens=ENDLESS))
        await eventually(lambda: bool(scheduler.parked), within_s=10)
        assert scheduler.parked[0].cause == ParkCause.PARK_CAUSE_ORPHANED


async def test_an_abandoned_gateway_is_connected_again_by_the_next_request(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    async with worker_here(nats_url, orphan_grace_s=0.2):
        worker_id = await scheduler.first_worker()
        await scheduler.dispatch(worker_id, record("a", gw, max_tokens=ENDLESS))
        await has_tokens(gw, "a", 1)
        await gw.stop()
        await eventually(lambda: bool(scheduler.parked), within_s=10)
        await gw.start()
        await scheduler.dispatch(worker_id, record("b", gw))
        await eventually(lambda: gw.said("b").has_ended)
