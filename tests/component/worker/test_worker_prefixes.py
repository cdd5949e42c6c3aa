"""A worker tells schedulers what its engine need not compute again, by the names that they use."""

from __future__ import annotations

import pytest

from headrace.bus import subjects
from headrace.bus.jetstream import JetStreamBus
from headrace.internal.v1.reports_pb2 import PrefixReport
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.request.prefixes import prefix_block_names
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.loading.builder import EngineBuilder
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor
from helpers.tiny_models import random_model
from helpers.worker_actors import DIGEST, MODEL, SchedulerActor, record, worker_here
from helpers.worker_settings import worker_settings

PROMPT = list(range(100, 150))


def engine(kv_store: str) -> SlotEngine:
    # Its model is its own: it runs on a thread of its own.
    settings = worker_settings(max_slots=1, context_tokens=128, kv_store=kv_store)
    return EngineBuilder(random_model("llama"), settings, (), DIGEST).packed()


class Listener:
    """Knows what a worker holds by all that it says."""

    def __init__(self) -> None:
        self.held: set[int] = set()

    def hear(self, payload: bytes) -> None:
        report = PrefixReport.FromString(payload)
        assert report.model == MODEL
        if report.full:
            self.held.clear()
        self.held.difference_update(report.dropped)
        self.held.update(report.held)


@pytest.mark.parametrize("kv_store", ["strips", "pages"])
async def test_what_was_computed_is_reported_until_it_is_dropped(
    kv_store: str, nats_url: str, bus: JetStreamBus, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    listener = Listener()
    await bus.subscribe(subjects.PREFIX_REPORTS, listener.hear)
    own = engine(kv_store)
    async with worker_here(nats_url, own, cached_blocks=own.cached_blocks):
        worker_id = await scheduler.first_worker()
        first = record("a", gw, prompt_ids=PROMPT)
        assert len(prefix_block_names(first)) == 3
        assert await scheduler.dispatch(worker_id, first) == []
        await eventually(lambda: listener.held >= set(prefix_block_names(first)))
        await eventually(lambda: gw.said("a").has_ended)
        longer = RequestRecord(
            weights_digest=DIGEST, prompt_ids=[*PROMPT, *gw.said("a").token_ids, 1]
        )
        await eventually(lambda: listener.held == set(prefix_block_names(longer)[:4]))
        other = record("b", gw, prompt_ids=[7, *PROMPT, *PROMPT])
        assert await scheduler.dispatch(worker_id, other) == []
        await eventually(lambda: listener.held >= set(prefix_block_names(other)))
        if kv_store == "strips":
            assert not listener.held & set(prefix_block_names(first)), (
                "its one slot holds something else"
            )


async def test_nothing_is_reported_where_that_is_switched_off(
    nats_url: str, bus: JetStreamBus, scheduler: SchedulerActor, gw: GatewayActor
) -> None:
    heard: list[bytes] = []
    await bus.subscribe(subjects.PREFIX_REPORTS, heard.append)
    own = engine("strips")
    async with worker_here(nats_url, own, cached_blocks=own.cached_blocks, prefix_report_blocks=0):
        worker_id = await scheduler.first_worker()
        assert await scheduler.dispatch(worker_id, record("a", gw, prompt_ids=PROMPT)) == []
        await eventually(lambda: gw.said("a").has_ended)
    assert heard == []
