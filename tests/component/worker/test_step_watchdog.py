"""An engine that does not come back from a step, in a process that lives."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from headrace.internal.v1.dispatch_pb2 import DispatchRefusalCause
from headrace_worker.engine.backends.scripted import ScriptedEngine, ScriptedSettings
from helpers.eventually import eventually
from helpers.listening_gateway import GatewayActor, has_tokens
from helpers.worker_actors import (
    ENDLESS,
    SchedulerActor,
    error_reason,
    record,
    undisturbed,
    worker_here,
)

FULL = DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_FULL
SLOTS = 4


class Tide:
    """A scripted engine's `sleep`: steps pass at `flow`, and hang at `ebb`."""

    def __init__(self) -> None:
        self._flows = threading.Event()
        self.flow()

    def flow(self) -> None:
        self._flows.set()

    def ebb(self) -> None:
        self._flows.clear()

    def __call__(self, step_s: float) -> None:
        self._flows.wait()


@pytest.fixture
def tide() -> Iterator[Tide]:
    tide = Tide()
    yield tide
    tide.flow()


def hanging(tide: Tide) -> ScriptedEngine:
    settings = ScriptedSettings(step_s=1.0, max_slots=SLOTS, context_tokens=2 * ENDLESS)
    return ScriptedEngine(settings, sleep=tide)


async def test_a_stalled_engine_gets_nothing_new_and_what_it_held_goes_on_elsewhere(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor, tide: Tide
) -> None:
    async with worker_here(nats_url, hanging(tide), step_stall_s=1.0) as worker:
        worker_id = await scheduler.first_worker()
        held = record("held", gw, max_tokens=ENDLESS)
        await scheduler.dispatch(worker_id, held)
        await has_tokens(gw, "held", 20)
        assert worker.app.why_not_ready is None
        tide.ebb()
        await eventually(lambda: scheduler.free_slots == 0, within_s=30)
        assert "the engine has been in one step for" in str(worker.app.why_not_ready)
        (refusal,) = await scheduler.dispatch(worker_id, record("more", gw))
        assert (refusal.cause, "in one step" in refusal.message) == (FULL, True)
        await eventually(lambda: bool(scheduler.parked), within_s=30)
        (point,) = scheduler.parked
        assert (point.request_id, error_reason(point.error)) == ("held", "ENGINE_FAILED")
        said = list(point.progress[0].output_ids)
        assert len(said) >= 20
        assert said == undisturbed(record("held", gw, max_tokens=len(said)))
        tide.flow()
        await eventually(lambda: scheduler.free_slots == SLOTS, within_s=30)
        assert worker.app.why_not_ready is None
        again = record("again", gw)
        assert await scheduler.dispatch(worker_id, again) == []
        await eventually(lambda: gw.said("again").has_ended)
        assert gw.said("again").token_ids == undisturbed(again)


async def test_a_worker_whose_engine_never_comes_back_ends_to_be_started_anew(
    nats_url: str, scheduler: SchedulerActor, gw: GatewayActor, tide: Tide
) -> None:
    async with worker_here(nats_url, hanging(tide), step_stall_s=0.1) as worker:
        tide.ebb()
        await scheduler.dispatch(await scheduler.first_worker(), record("held", gw))
        await eventually(lambda: bool(scheduler.parked), within_s=30)
        await eventually(lambda: worker.app.why_not_ready == "draining", within_s=30)
        tide.flow()
        assert await worker.exit_status() == 1
