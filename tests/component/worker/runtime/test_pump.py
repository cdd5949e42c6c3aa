"""The crossing between the event loop and the engine's thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from headrace_worker.engine.backends.scripted import (
    ScriptedEngine,
    ScriptedFaults,
    ScriptedSettings,
)
from headrace_worker.engine.base.interface import (
    Engine,
    SamplingParameters,
    Sequence,
    StepOutput,
)
from headrace_worker.runtime.pump import MAX_STEPS_AHEAD, Pump
from helpers.eventually import eventually

ENDLESS = SamplingParameters(max_tokens=100_000, ignore_eos=True)
WAIT_S = 10


def sequence(sequence_id: int, parameters: SamplingParameters = ENDLESS) -> Sequence:
    return Sequence(sequence_id, (5, 6, 7), (), parameters, seed=1)


class Gate:
    """A scripted engine's `sleep`: each step waits for leave."""

    def __init__(self) -> None:
        self._leave = threading.Semaphore(0)
        self.entered = 0
        """Steps that have begun."""

    def allow(self, steps: int) -> None:
        self._leave.release(steps)

    def __call__(self, _: float) -> None:
        self.entered += 1
        assert self._leave.acquire(timeout=WAIT_S)


def gated(gate: Gate, *, max_slots: int = 4) -> ScriptedEngine:
    return ScriptedEngine(
        ScriptedSettings(step_s=1.0, max_slots=max_slots, context_tokens=200_000),
        sleep=gate,
    )


class Received:
    """What the event loop received."""

    def __init__(self) -> None:
        self.steps: list[StepOutput] = []
        self.refused: list[tuple[int, str]] = []
        self.deaths: list[BaseException] = []
        self.threads: set[int] = set()

    def step(self, output: StepOutput) -> None:
        self.threads.add(threading.get_ident())
        self.steps.append(output)

    def refusal(self, sequence_id: int, reason: str) -> None:
        self.refused.append((sequence_id, reason))


@asynccontextmanager
async def pumping(
    engine: Engine, *, gate: Gate | None = None
) -> AsyncIterator[tuple[Pump, Received]]:
    received = Received()
    pump = Pump(
        engine, on_step=received.step, on_refused=received.refusal, on_death=received.deaths.append
    )
    pump.start()
    try:
        yield pump, received
    finally:
        if gate is not None:
            gate.allow(1000)
        await pump.stop()
        assert not pump.alive


async def test_tokens_come_in_order_and_on_the_loop() -> None:
    async with pumping(ScriptedEngine()) as (pump, received):
        pump.admit(sequence(1, SamplingParameters(max_tokens=5, ignore_eos=True)))
        await eventually(lambda: any(s.finished for s in received.steps))
    assert [s.sequence_ids for s in received.steps] == [[1]] * 5
    assert received.threads == {threading.get_ident()}


async def test_what_becomes_known_of_a_prompt_comes_before_its_first_token() -> None:
    engine = ScriptedEngine(ScriptedSettings(prefill_chunk_tokens=8))
    async with pumping(engine) as (pump, received):
        parameters = SamplingParameters(max_tokens=1, prompt_logprobs=0)
        pump.admit(replace(sequence(1, parameters), prompt_ids=tuple(range(10, 30))))
        await eventually(lambda: any(s.finished for s in received.steps))
    assert [len(s.prompt_logprobs.get(1, ())) for s in received.steps] == [8, 8, 3]
    assert [s.sequence_ids for s in received.steps] == [[], [], [1]]


async def test_what_is_admitted_while_a_step_runs_joins_the_next_one() -> None:
    gate = Gate()
    async with pumping(gated(gate), gate=gate) as (pump, received):
        pump.admit(sequence(1))
        await eventually(lambda: gate.entered == 1)
        pump.admit(sequence(2))
        gate.allow(2)
        await eventually(lambda: len(received.steps) == 2)
        assert [s.sequence_ids for s in received.steps] == [[1], [1, 2]]


async def test_a_cancel_is_done_before_the_next_step() -> None:
    gate = Gate()
    async with pumping(gated(gate), gate=gate) as (pump, received):
        pump.admit(sequence(1))
        pump.admit(sequence(2))
        await eventually(lambda: gate.entered == 1)
        pump.cancel(1)
        gate.allow(2)
        await eventually(lambda: len(received.steps) == 2)
        assert [s.sequence_ids for s in received.steps] == [[1, 2], [2]]


async def test_a_slot_that_is_cancelled_can_be_taken_by_the_next_command() -> None:
    gate = Gate()
    async with pumping(gated(gate, max_slots=1), gate=gate) as (pump, received):
        pump.admit(sequence(1))
        await eventually(lambda: gate.entered == 1)
        pump.cancel(1)
        pump.admit(sequence(2))
        gate.allow(2)
        await eventually(lambda: len(received.steps) == 2)
        assert received.steps[1].sequence_ids == [2]
        assert received.refused == []


async def test_a_call_runs_on_the_engines_thread_between_two_steps() -> None:
    gate = Gate()
    async with pumping(gated(gate), gate=gate) as (pump, received):
        pump.admit(sequence(1))
        await eventually(lambda: gate.entered == 1)
        called = asyncio.create_task(pump.do(lambda: (gate.entered, threading.get_ident())))
        await asyncio.sleep(0)  # Else the engine's thread may be in its next step before the call.
        gate.allow(1)
        entered, thread = await called
        assert entered == 1
        assert thread not in received.threads


async def test_an_error_of_a_call_is_raised_to_its_caller_and_harms_nothing() -> None:
    async with pumping(ScriptedEngine()) as (pump, received):
        with pytest.raises(KeyError, match="missing"):
            await pump.do(lambda: dict[str, int]()["missing"])
        pump.admit(sequence(1, SamplingParameters(max_tokens=1)))
        await eventually(lambda: len(received.steps) == 1)
        assert received.deaths == []


async def test_cancelling_what_has_ended_changes_nothing() -> None:
    async with pumping(ScriptedEngine()) as (pump, received):
        pump.admit(sequence(1, SamplingParameters(max_tokens=1)))
        await eventually(lambda: len(received.steps) == 1)
        pump.cancel(1)
        pump.admit(sequence(2, SamplingParameters(max_tokens=1)))
        await eventually(lambda: len(received.steps) == 2)


async def test_what_the_engine_refuses_is_reported_and_the_others_go_on() -> None:
    gate = Gate()
    async with pumping(gated(gate, max_slots=1), gate=gate) as (pump, received):
        pump.admit(sequence(1))
        pump.admit(sequence(2))
        gate.allow(1)
        await eventually(lambda: len(received.steps) == 1 and len(received.refused) == 1)
        assert received.refused == [(2, "all 1 slots are taken")]
        assert received.steps[0].sequence_ids == [1]


async def test_an_engine_whose_loop_takes_nothing_stops_a_few_steps_ahead() -> None:
    async with pumping(ScriptedEngine()) as (pump, received):
        pump.admit(sequence(1, SamplingParameters(max_tokens=50, ignore_eos=True)))
        # The loop is held up here on purpose, until the engine's thread has come to its stop.
        ahead, still = 0, 0
        while still < 20:
            threading.Event().wait(0.005)
            steps = pump.statistics().steps
            ahead, still = steps, still + 1 if steps == ahead and steps else 0
        assert received.steps == []
        assert ahead == MAX_STEPS_AHEAD + 1  # the last one waits in the thread's own hands
        await eventually(lambda: len(received.steps) == 50)


async def test_statistics_are_true_also_when_nothing_steps_any_more() -> None:
    gate = Gate()
    async with pumping(gated(gate), gate=gate) as (pump, _):
        pump.admit(sequence(1))
        gate.allow(1)
        await eventually(lambda: pump.statistics().steps == 1)
        assert pump.statistics().running == 1
        await eventually(lambda: gate.entered == 2)
        pump.cancel(1)
        gate.allow(1)
        await eventually(lambda: pump.statistics().running == 0)
        assert pump.statistics().cache_tokens_used == 0


async def test_a_broken_engine_is_reported_once_after_all_of_its_output() -> None:
    def crash() -> None:
        raise RuntimeError("the scripted engine is made to fail")

    settings = ScriptedSettings(faults=ScriptedFaults(crash_after_steps=3))
    async with pumping(ScriptedEngine(settings, crash=crash)) as (pump, received):
        pump.admit(sequence(1))
        await eventually(lambda: bool(received.deaths))
        assert len(received.steps) == 3
        await eventually(lambda: not pump.alive)
        pump.admit(sequence(2))
    assert [str(d) for d in received.deaths] == ["the scripted engine is made to fail"]


async def test_a_pump_stops_in_the_middle_of_its_work() -> None:
    engine = ScriptedEngine(ScriptedSettings(context_tokens=200_000))
    async with pumping(engine) as (pump, received):
        pump.admit(sequence(1))
        await eventually(lambda: len(received.steps) > 10)
    assert engine.statistics().running == 1
    engine.check_integrity()


async def test_a_pump_that_has_nothing_to_do_stops_at_once() -> None:
    async with pumping(ScriptedEngine()) as (pump, _):
        async with asyncio.timeout(0.5):
            await pump.stop()
