"""One engine in one process: waiting for slots, ends, failures, a full cache, and closing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from headrace.client.messages import make_request
from headrace.errors import EngineFailed, FailedPrecondition, HeadraceError, RequestCancelled
from headrace.v1.common_pb2 import Choice
from headrace.v1.generation_pb2 import GenerateRequest, StreamGenerateResponse
from headrace_gateway.request.generation_request import Text
from headrace_local.loading import OneModel, loaded_model, settings_of
from headrace_local.running_batch import RunningBatch
from headrace_local.service import LocalService
from headrace_worker.engine.backends.scripted import (
    ScriptedEngine,
    ScriptedFaults,
    ScriptedSettings,
)
from headrace_worker.engine.base.interface import StepOutput

LONG: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True}


class Parking(ScriptedEngine):
    """Parks the newest of several sequences in every third step, as an engine with a full cache."""

    def __init__(self) -> None:
        super().__init__(ScriptedSettings(max_slots=4, prefill_chunk_tokens=1))
        self.parked: list[int] = []

    def step(self) -> StepOutput:
        output = super().step()
        if self._counters.steps % 3 == 0 and len(self._held) > 1:
            newest = max(self._held)
            self.park(newest)
            self.parked.append(newest)
            output.parked.append(newest)
        return output


@dataclass(frozen=True)
class Local:
    service: LocalService
    batch: RunningBatch
    model: OneModel

    async def choices(self, request: GenerateRequest) -> list[Choice]:
        """What each choice comes to."""
        found = [Choice(index=index) for index in range(max(1, request.n))]
        async for event in self.service.stream(request):
            if event.HasField("delta"):
                choice = found[event.delta.choice]
                assert event.delta.first_index == len(choice.token_ids)
                choice.text += event.delta.text
                choice.token_ids.extend(event.delta.token_ids)
                choice.finish_reason = event.delta.finish_reason
                choice.logprobs.MergeFrom(event.delta.logprobs)
                choice.prompt_logprobs.MergeFrom(event.delta.prompt_logprobs)
        return found


@asynccontextmanager
async def local(engine: ScriptedEngine | None = None) -> AsyncIterator[Local]:
    """The scripted engine, or one like it, behind prompts and output."""
    loaded, model = await loaded_model(settings_of("scripted", {"engine": "scripted"}))
    batch = RunningBatch(model.served.name, engine or loaded.engine)
    try:
        yield Local(LocalService(model, batch), batch, model)
    finally:
        batch.close()
        await asyncio.to_thread(batch.join)


def request(text: str = "Hello", **more: Any) -> GenerateRequest:
    return make_request(text, model="scripted", **{"seed": 1, **more})


@contextmanager
def refused(kind: type[HeadraceError], fact: str) -> Iterator[None]:
    with pytest.raises(kind, match=fact) as caught:
        yield
    assert type(caught.value) is kind


async def test_more_requests_than_slots_are_all_answered_as_each_alone() -> None:
    requests = [request(f"Number {i}", max_tokens=5 + i) for i in range(12)]
    async with local(ScriptedEngine(ScriptedSettings(max_slots=3))) as one:
        alone = [await one.choices(each) for each in requests]
        together = await asyncio.gather(*map(one.choices, requests))
        assert together == alone
        assert one.batch.idle


async def test_choices_of_a_request_are_drawn_with_seeds_of_their_own() -> None:
    both = request(temperature=1.0, **LONG)
    both.n = 2
    async with local() as one:
        first, second = await one.choices(both)
        (alone,) = await one.choices(request(temperature=1.0, **LONG, seed=2))
    assert first.text != second.text
    assert alone.text == second.text


async def test_a_stop_string_ends_its_choice_and_frees_the_slot() -> None:
    async with local(ScriptedEngine(ScriptedSettings(max_slots=1))) as one:
        (whole,) = await one.choices(request(**LONG))
        word = whole.text.split()[3]
        (cut,) = await one.choices(request(**LONG, stop=[word]))
        assert cut.text == whole.text[: whole.text.index(word)]
        assert one.batch.idle


async def test_what_a_full_cache_parks_goes_on_with_the_same_tokens() -> None:
    requests = [request(f"Number {i}", **LONG, logprobs=1, prompt_logprobs=1) for i in range(5)]
    async with local() as calm:
        undisturbed = [await calm.choices(each) for each in requests]
    engine = Parking()
    async with local(engine) as full:
        assert await asyncio.gather(*map(full.choices, requests)) == undisturbed
    assert len(engine.parked) > 3


async def test_a_sequence_that_fails_ends_alone() -> None:
    async with local() as one:
        ids = await one.model.served.tokenizer.encode(Text("bad"), special_tokens=False)
    faults = ScriptedFaults(fail_prompts_containing=ids[0])
    async with local(ScriptedEngine(ScriptedSettings(faults=faults))) as one:
        good = asyncio.create_task(one.choices(request("Hello", **LONG)))
        with refused(EngineFailed, "the prompt has token"):
            await one.choices(request("bad", **LONG))
        assert len((await good)[0].token_ids) == LONG["max_tokens"]


async def test_an_engine_that_dies_fails_what_runs_and_what_comes() -> None:
    def crash() -> None:
        raise RuntimeError("no more")

    engine = ScriptedEngine(
        ScriptedSettings(faults=ScriptedFaults(crash_after_steps=3)), crash=crash
    )
    async with local(engine) as one:
        running = [one.choices(request(**LONG)) for _ in range(2)]
        ends = await asyncio.gather(*running, return_exceptions=True)
        assert [str(end) for end in ends] == [
            "the engine of model scripted has ended: RuntimeError('no more')"
        ] * 2
        with refused(EngineFailed, "no more"):
            await one.choices(request())


async def test_a_reader_that_leaves_frees_the_slot() -> None:
    async with local(ScriptedEngine(ScriptedSettings(max_slots=1))) as one:
        stream = one.service.stream(request(max_tokens=4000, ignore_eos=True))
        assert (await anext(stream)).HasField("started")
        await anext(stream)
        await stream.aclose()
        assert one.batch.idle
        await one.choices(request(**LONG))


async def test_a_cancelled_call_frees_the_slot_and_its_place() -> None:
    async with local(ScriptedEngine(ScriptedSettings(max_slots=1))) as one:
        endless = request(max_tokens=4000, ignore_eos=True)
        stream = one.service.stream(endless)
        await anext(stream)
        waiting = asyncio.create_task(one.choices(endless))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await stream.aclose()
        assert one.batch.idle


async def test_closing_ends_what_runs_and_refuses_what_comes() -> None:
    async with local(ScriptedEngine(ScriptedSettings(step_s=0.001))) as one:
        stream = one.service.stream(request(max_tokens=4000, ignore_eos=True))
        await anext(stream)
        one.batch.close()

        async def rest() -> list[StreamGenerateResponse]:
            return [event async for event in stream]

        with refused(RequestCancelled, "model scripted was closed"):
            await rest()
        with refused(FailedPrecondition, "load it again"):
            await one.choices(request())
