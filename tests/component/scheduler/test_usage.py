"""What requests have used is published before their messages are removed, by real schedulers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.bus import BusUnavailable
from headrace.bus.jetstream import JetStreamBus
from headrace.bus.jetstream.lanes import JetStreamLane
from headrace.errors import Code
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.internal.v1.usage_pb2 import UsageKind, UsageRecord, UsageRecords
from headrace.v1.common_pb2 import RequestOutcome, Usage
from helpers.eventually import eventually
from helpers.running_scheduler import scheduler, start_scheduler
from helpers.scheduler_actors import (
    MODEL,
    GatewayActor,
    WorkerActor,
    cancel,
    find,
    is_gone,
    unsettled,
)


async def published(bus: JetStreamBus) -> list[UsageRecord]:
    """All records there are, those that were published twice included."""
    found = await bus.usage_after(None, max_messages=1000, timeout_s=0.0)
    return [record for each in found for record in UsageRecords.FromString(each.payload).records]


async def run_and_settle(
    gateway: GatewayActor, worker: WorkerActor, *request_ids: str, **figures: int
) -> None:
    await eventually(lambda: set(request_ids) <= worker.running.keys())
    for request_id in request_ids:
        await worker.finish(request_id)
    await gateway.settle(*request_ids, **figures)


async def test_a_record_has_what_its_gateway_has_told_its_client(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    who: dict[str, Any] = {"tenant": "acme", "key_id": "key_1", "person": "ada"}
    what: dict[str, Any] = {"listed_model": "listed", "batch_id": "b", "batch_line": 7}
    async with scheduler(nats_url):
        await gateway.submit("acme/r-1", n=2, reservation_id="r-1.x", **who, **what)
        await run_and_settle(
            *(gateway, worker, "acme/r-1"),
            prompt_tokens=11,
            output_tokens=5,
            cached_prompt_tokens=8,
            first_token_ms=40,
        )
        assert await unsettled(bus) == []
    (record,) = await published(bus)
    assert record.source == (await bus.request_sources()).current
    assert (record.sequence, record.request_id, record.tenant) == (1, "r-1", "acme")
    assert (record.key_id, record.person, record.model) == ("key_1", "ada", "listed")
    assert (record.input_tokens, record.cached_input_tokens, record.output_tokens) == (11, 8, 5)
    assert (record.code, record.attempts, record.n, record.first_token_ms) == (0, 1, 2, 40)
    assert (record.batch_id, record.batch_line, record.reservation_id) == ("b", 7, "r-1.x")
    assert (record.version, record.kind) == ("w1", UsageKind.USAGE_KIND_COMPLETIONS)
    assert record.arrival_ms <= record.end_ms <= record.arrival_ms + 60_000
    assert record.queue_ms <= record.end_ms - record.arrival_ms


async def test_requests_that_end_without_a_worker_have_records_and_probes_have_none(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await gateway.submit("probe", probe=True, priority="interactive")
        await gateway.submit("impatient", patience_s=0.2, weights_digest="nowhere")
        await gateway.submit("cancelled", weights_digest="nowhere")
        await eventually(lambda: is_cancelled(bus))
        await eventually(lambda: {"impatient", "cancelled"} <= gateway.ended.keys())
        await gateway.settle("probe")
        await eventually(lambda: nothing_unsettled(bus))
    found = {record.request_id: record.code for record in await published(bus)}
    assert found == {"impatient": Code.UNAVAILABLE.number, "cancelled": Code.CANCELLED.number}


async def is_cancelled(bus: JetStreamBus) -> bool:
    return (await cancel(bus, "cancelled")).found


async def test_of_a_request_that_lost_its_gateway_a_stored_result_counts(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    """Its client has seen the end; its gateway died before it could settle."""
    async with scheduler(nats_url):
        for request_id in ("told", "cut-off"):
            await gateway.submit(request_id)
        await eventually(lambda: worker.running.keys() == {"told", "cut-off"})
        arrival = (await find(bus, "told")).record.arrival
        outcome = RequestOutcome(usage=Usage(prompt_tokens=3, output_tokens=9))
        result = ResultRecord(request=RequestRecord(arrival=arrival), outcome=outcome)
        await bus.put_result("told", result.SerializeToString())
        other = ResultRecord(request=RequestRecord(), outcome=outcome)
        await bus.put_result("cut-off", other.SerializeToString())
        await gateway.die()
        for request_id in ("told", "cut-off"):
            await eventually(lambda name=request_id: is_gone(bus, name), within_s=30.0)
        await eventually(lambda: nothing_unsettled(bus))
    found = {record.request_id: record for record in await published(bus)}
    assert (found["told"].code, found["told"].output_tokens) == (0, 9)
    assert (found["cut-off"].code, found["cut-off"].output_tokens) == (
        Code.UNAVAILABLE.number,
        0,
    )


async def nothing_unsettled(bus: JetStreamBus) -> bool:
    return await unsettled(bus) == []


async def test_a_leader_that_dies_between_record_and_acknowledgement_leaves_one_row(
    nats_url: str,
    bus: JetStreamBus,
    gateway: GatewayActor,
    worker: WorkerActor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    acknowledges = JetStreamLane.acknowledge

    async def never(_: JetStreamLane, __: str) -> None:
        raise BusUnavailable("the process is about to die")

    monkeypatch.setattr(JetStreamLane, "acknowledge", never)
    first = await start_scheduler(nats_url, "first")
    await gateway.submit("a")
    await eventually(lambda: "a" in worker.running)
    await worker.finish("a")
    settling = asyncio.create_task(gateway.settle("a", prompt_tokens=3, output_tokens=4))

    async def is_published() -> bool:
        return len(await published(bus)) == 1

    await eventually(is_published)
    await first.kill()
    monkeypatch.setattr(JetStreamLane, "acknowledge", acknowledges)
    async with scheduler(nats_url, "second"):
        await asyncio.wait_for(settling, 30.0)
    assert await unsettled(bus) == []
    first_record, *again = await published(bus)
    assert first_record.output_tokens == 4
    for record in (first_record, *again):
        assert (record.source, record.sequence) == ((await bus.request_sources()).current, 1)


async def test_a_full_stream_holds_up_who_is_billed_and_no_other(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        config = (await bus.jetstream.stream_info("USAGE")).config
        config.max_bytes = 4096
        await bus.jetstream.update_stream(config)
        await bus.publish_usage(b"x" * 3900)
        await gateway.submit("open")
        await run_and_settle(gateway, worker, "open")
        await gateway.submit("billed", tenant="acme", key_id="key_1")
        await eventually(lambda: "billed" in worker.running)
        await worker.finish("billed")
        settling = asyncio.create_task(gateway.settle("billed", output_tokens=4))
        await eventually(lambda: is_gone(bus, "billed"))
        assert (await bus.usage_state()).messages == 1
        assert len(await unsettled(bus)) == 1
        assert not settling.done()
        config.max_bytes = 1 << 20
        await bus.jetstream.update_stream(config)
        await asyncio.wait_for(settling, 30.0)
    (found,) = (await bus.usage_after(None, max_messages=9, timeout_s=0.0))[1:]
    (record,) = UsageRecords.FromString(found.payload).records
    assert (record.request_id, record.output_tokens) == ("billed", 4)


async def test_totals_of_a_leadership_are_the_sums_of_its_records(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        for tenant, name in (("a", "1"), ("b", "2"), ("a", "3")):
            await gateway.submit(name, tenant=tenant)
            await run_and_settle(gateway, worker, name, prompt_tokens=3, output_tokens=int(name))
    found = await bus.usage_after(None, max_messages=9, timeout_s=0.0)
    messages = [UsageRecords.FromString(each.payload) for each in found]
    assert {(each.model, each.epoch > 0) for each in messages} == {(MODEL, True)}
    last = {total.tenant: total for each in messages for total in each.totals}
    assert (last["a"].requests, last["a"].input_tokens, last["a"].output_tokens) == (2, 6, 4)
    assert (last["b"].requests, last["b"].input_tokens, last["b"].output_tokens) == (1, 3, 2)
