"""A leader hears what workers hold, and sends there what begins so."""

from __future__ import annotations

import itertools

from headrace.bus import subjects
from headrace.bus.jetstream import JetStreamBus
from headrace.internal.v1.reports_pb2 import PrefixReport
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.request.prefixes import prefix_block_names
from helpers.eventually import eventually
from helpers.running_scheduler import scheduler
from helpers.scheduler_actors import MODEL, GatewayActor, WorkerActor

PROMPT = list(range(100))
NAMES = prefix_block_names(RequestRecord(weights_digest="w1", prompt_ids=PROMPT))


async def test_a_worker_draws_what_begins_as_it_holds(nats_url: str, bus: JetStreamBus) -> None:
    gateway = await GatewayActor(bus, "gw-1").start()
    # Without a reason the first of them is given what comes.
    workers = [await WorkerActor(bus, f"worker-{n}").start() for n in (1, 2)]
    numbers = itertools.count()

    async def next_goes_to_the_second() -> bool:
        report = PrefixReport(worker_id="worker-2", model=MODEL, full=True, held=NAMES)
        await bus.publish(subjects.PREFIX_REPORTS, report.SerializeToString())
        request_id = f"r{next(numbers)}"
        await gateway.submit(request_id, prompt_ids=PROMPT, weights_digest="w1")
        await eventually(lambda: any(request_id in w.running for w in workers))
        (found,) = (w for w in workers if request_id in w.running)
        await found.finish(request_id)
        await gateway.settle(request_id)
        return found is workers[1]

    async with scheduler(nats_url):
        await eventually(next_goes_to_the_second)
    for actor in (gateway, *workers):
        await actor.die()


async def test_what_is_no_report_is_counted_and_passed_over(
    nats_url: str, bus: JetStreamBus
) -> None:
    gateway = await GatewayActor(bus, "gw-1").start()
    worker = await WorkerActor(bus, "worker-1").start()
    async with scheduler(nats_url):
        await bus.publish(subjects.PREFIX_REPORTS, b"\xff")
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        await gateway.settle("a")
    await gateway.die()
    await worker.die()
