"""A leader receives prefix reports, and dispatches prompts to the workers that hold them."""

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


async def test_a_prompt_goes_to_the_worker_that_reported_its_prefix(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor
) -> None:
    # Without a prefix the first of them gets the request.
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
    for worker in workers:
        await worker.die()


async def test_a_message_that_is_no_prefix_report_is_counted_and_ignored(
    nats_url: str, bus: JetStreamBus, gateway: GatewayActor, worker: WorkerActor
) -> None:
    async with scheduler(nats_url):
        await bus.publish(subjects.PREFIX_REPORTS, b"\xff")
        await gateway.submit("a")
        await eventually(lambda: "a" in worker.running)
        await gateway.settle("a")
