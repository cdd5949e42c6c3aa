"""One scheduler over a real nats-server, with actors for workers and gateways."""

from __future__ import annotations

import asyncio

from headrace.bus.jetstream import JetStreamBus
from headrace.errors import (
    AttemptsExhausted,
    DeadlineExceeded,
    LaneFull,
    NoWorker,
    RequestCancelled,
)
from headrace.internal.v1.dispatch_pb2 import (
    DISPATCH_REFUSAL_CAUSE_DRAINING,
    DISPATCH_REFUSAL_CAUSE_INVALID,
)
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.reports_pb2 import DeadLetter, ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.model_names import lane_id
from headrace.rpc.status import from_status
from helpers.eventually import eventually
from helpers.running_scheduler import scheduler
from helpers.scheduler_actors import (
    MODEL,
    GatewayActor,
    WorkerActor,
    cancel,
    find,
    is_found,
    is_gone,
    next_lane_report,
    unsettled,
)


async def test_a_request_is_dispatched_settled_and_removed(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        assert worker.running["a"].attempt > 0
        found = await find(bus, "a")
        assert (found.found, found.running, found.worker_name) == (True, True, "name of worker-1")
        await worker.finish("a")
        await gateway.settle("a")
        assert not (await find(bus, "a")).found
    assert await unsettled(bus) == []


async def test_a_detached_request_without_any_gateway_ends_at_its_deadline_and_that_is_kept(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        for request_id in ("a", "b"):
            await gateway.submit(request_id, timeout_s=8.0, detached=True)
        await eventually(lambda: worker.running.keys() == {"a", "b"})
        record = RequestRecord(arrival=(await find(bus, "b")).record.arrival)
        own = ResultRecord(request_id="b", request=record)
        await bus.put_result("b", own.SerializeToString())
        await gateway.die()

        async def result(request_id: str) -> ResultRecord:
            return ResultRecord.FromString(await bus.get_result(request_id) or b"")

        async def is_kept() -> bool:
            return (await result("a")).outcome.HasField("error")

        await eventually(is_kept, within_s=30.0)
        kept = await result("a")
        assert isinstance(from_status(kept.outcome.error), DeadlineExceeded)
        assert (kept.request.detached, list(kept.request.prompt_ids)) == (True, [])
        await eventually(lambda: is_gone(bus, "b"), within_s=30.0)
        assert not (await result("b")).outcome.HasField("error"), "its gateway's own result stays"
    assert await unsettled(bus) == []


async def test_requests_that_come_together_leave_in_few_batches(
    nats_url: str, gateway: GatewayActor, bus: JetStreamBus
) -> None:
    worker = await WorkerActor(bus, "worker-1", slots=32).start()
    async with scheduler(nats_url):
        for i in range(32):
            await gateway.submit(f"r{i}")
        await eventually(lambda: len(worker.running) == 32)
        assert sum(worker.batches) == 32
        await gateway.settle(*list(worker.running))
    await worker.die()


async def test_what_a_silent_worker_ran_resumes_elsewhere_with_its_output_so_far(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await gateway.submit("a", n=2)
        await eventually(lambda: "a" in worker.running)
        first = worker.running["a"].attempt
        gateway.relayed["a"] = [7, 8, 9]
        other = await WorkerActor(bus, "worker-2").start()
        await worker.die()
        await eventually(lambda: "a" in other.running)
        again = other.running["a"]
        assert again.attempt > first
        assert gateway.fenced["a"] >= first
        assert list(again.progress[0].output_ids) == [7, 8, 9]
        assert again.failures == 1
        await gateway.settle("a")
        await other.die()
    assert await unsettled(bus) == []


async def test_what_a_gateway_lost_resumes_at_once_and_stops_on_the_old_worker(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        first = worker.running["a"].attempt
        gateway.relayed["a"] = [5]
        await gateway.lose(worker, "a")
        await eventually(lambda: len(worker.attempts("a")) == 2)
        assert worker.cancelled == [("a", first)] or worker.running["a"].attempt > first
        await gateway.settle("a")


async def test_a_parked_request_resumes_where_its_client_is(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        gateway.relayed["a"] = [1, 2]
        worker.draining = True
        other = await WorkerActor(bus, "worker-2").start()
        await worker.park("a")
        await eventually(lambda: "a" in other.running)
        assert list(other.running["a"].progress[0].output_ids) == [1, 2]
        assert other.running["a"].failures == 0
        await gateway.settle("a")
        await other.die()


async def test_a_request_that_fails_on_every_attempt_is_ended_and_kept_as_a_dead_letter(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url, max_attempts=3):
        await gateway.submit("a")
        for attempts in (1, 2, 3):
            await eventually(lambda n=attempts: len(worker.attempts("a")) == n)
            await worker.park("a", error="the engine fell over")
        await eventually(lambda: "a" in gateway.ended)
        error = from_status(gateway.ended["a"])
        assert isinstance(error, AttemptsExhausted)
        assert "the engine fell over" in error.message
        await eventually(lambda: is_gone(bus, "a"))
    assert await unsettled(bus) == []
    (letter,) = await letters(bus)
    assert (letter.attempts, letter.reason) == (3, error.message)
    assert RequestRecord.FromString(letter.message).request_id == "a"


async def letters(bus: JetStreamBus) -> list[DeadLetter]:
    stored = await bus.dead_letters(limit=10)
    assert all(each.lane == lane_id(MODEL) for each in stored)
    return [DeadLetter.FromString(each.letter) for each in stored]


async def test_an_unreadable_message_is_dead_lettered_and_delays_no_other(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await bus.submit(MODEL, "standard", b"\xff\xff\xff", message_id="junk")
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        await gateway.settle("a")
    assert await unsettled(bus) == []
    (letter,) = await letters(bus)
    assert (letter.message, letter.attempts) == (b"\xff\xff\xff", 0)


async def test_of_a_burst_exactly_as_many_are_queued_as_the_lane_holds(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor
) -> None:
    worker = await WorkerActor(bus, "worker-1", slots=1).start()
    async with scheduler(nats_url, max_waiting=20) as process:
        await gateway.submit("first")
        await eventually(lambda: "first" in worker.running)
        await asyncio.gather(*(gateway.submit(f"r{i}") for i in range(100)))
        await eventually(lambda: len(gateway.ended) == 80)
        assert all(isinstance(from_status(e), LaneFull) for e in gateway.ended.values())
        standard = (await next_lane_report(bus))["standard"]
        assert (standard.waiting, standard.running) == (20, 1)
        assert process.service.leads(MODEL)
        gateway.relayed.clear()
    await worker.die()


async def test_without_a_worker_a_request_of_a_known_model_waits_for_as_long_as_its_patience(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor
) -> None:
    await bus.put_card(MODEL, ModelCard(model=MODEL).SerializeToString())
    async with scheduler(nats_url):
        await gateway.submit("a", patience_s=0.2)
        await eventually(lambda: "a" in gateway.ended)
        assert isinstance(from_status(gateway.ended["a"]), NoWorker)


async def test_a_waiting_request_can_be_cancelled_by_its_id(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    worker.draining = True
    async with scheduler(nats_url):
        await gateway.submit("a")
        await eventually(lambda: is_found(bus, "a"))
        found = await cancel(bus, "a")
        assert (found.found, found.running) == (True, False)
        await eventually(lambda: "a" in gateway.ended)
        assert isinstance(from_status(gateway.ended["a"]), RequestCancelled)
        await eventually(lambda: is_gone(bus, "a"))
    assert await unsettled(bus) == []


async def test_a_running_request_that_is_cancelled_stops_on_its_worker(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        await cancel(bus, "a")
        await eventually(lambda: "a" not in worker.running)
        await eventually(lambda: "a" in gateway.ended)
        await eventually(lambda: is_gone(bus, "a"))
    assert await unsettled(bus) == []


async def test_a_refused_request_is_dispatched_again_and_an_invalid_one_ends(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        worker.refusal = DISPATCH_REFUSAL_CAUSE_DRAINING
        await gateway.submit("a")
        await eventually(lambda: bool(worker.batches))
        worker.refusal = None
        await eventually(lambda: "a" in worker.running)
        worker.refusal = DISPATCH_REFUSAL_CAUSE_INVALID
        await gateway.submit("b")
        await eventually(lambda: "b" in gateway.ended)
        assert gateway.ended["b"].code == 3
        await gateway.settle("a")
        await eventually(lambda: is_gone(bus, "b"))
    assert await unsettled(bus) == []


async def test_requests_of_a_gateway_that_died_are_stopped_and_removed(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        await gateway.die()
        await eventually(lambda: "a" not in worker.running)
        await eventually(lambda: is_gone(bus, "a"))
    assert await unsettled(bus) == []


async def test_a_request_that_its_gateway_does_not_know_is_not_run_again(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        del gateway.relayed["a"]
        await worker.finish("a")
        await eventually(lambda: is_gone(bus, "a"))
        assert len(worker.attempts("a")) == 1
    assert await unsettled(bus) == []


async def test_a_request_runs_only_on_the_weights_it_was_made_for(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await gateway.submit("new", weights_digest="w2")
        await gateway.submit("old")
        await eventually(lambda: "old" in worker.running)
        other = await WorkerActor(bus, "worker-2", digest="w2").start()
        await eventually(lambda: "new" in other.running)
        assert worker.attempts("new") == []
        await gateway.settle("new", "old")
        await other.die()
