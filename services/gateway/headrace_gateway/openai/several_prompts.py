"""Several prompts in one call of /v1/completions: a request for each, and one answer of all.

Every prompt is checked before the first is submitted, and the first few are admitted together or
refused together; the others are submitted as these end, so that one call does not fill a lane. A
prompt that fails ends the call with its error, and what is still open of the call is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from headrace.errors import (
    BrokerUnavailable,
    ContextLengthExceeded,
    InvalidRequest,
    LaneFull,
    NoWorker,
    PatienceExhausted,
    RequestError,
    Unsupported,
)
from headrace.v1.common_pb2 import Usage
from headrace_gateway.answering import Answer, GenerationFailed
from headrace_gateway.calls import Call
from headrace_gateway.generation import ValidRequest
from headrace_gateway.intake import Intake
from headrace_gateway.limits import Limits
from headrace_gateway.openai.chunks import COMPLETION, Chunks, Head, whole_choices, whole_opening
from headrace_gateway.openai.telling import Asked, Telling
from headrace_gateway.pacing import in_pieces, unhurried
from headrace_gateway.repeats import answered_once
from headrace_gateway.reply import Reply, queue_comment, written
from headrace_gateway.resuming import Resuming
from headrace_gateway.returning import HEADER as LAST_EVENT_ID
from headrace_gateway.returning import keyed
from headrace_gateway.wanted import Wanted

_RETRY_S = 1.0
_RESUME = "X-Headrace-Resume"

_NO_ROOM = (LaneFull, PatienceExhausted, NoWorker, BrokerUnavailable)
"""Refusals that a prompt waits out once others of its call have been let in."""


@dataclass(frozen=True, slots=True)
class SeveralPrompts:
    """What one call asks for."""

    wanted: Sequence[Wanted]
    """Of each prompt; alike but for the prompt."""
    asked: Asked
    include_usage: bool


class TellingOf(Protocol):
    def __call__(
        self, asked: Asked, wanted: Wanted, answer: Answer, prompt_ids: Sequence[int]
    ) -> Telling | None:
        """What an answer has beside its text, where that was asked for."""
        ...


class PromptCalls:
    def __init__(
        self, intake: Intake, resuming: Resuming, limits: Limits, telling_of: TellingOf
    ) -> None:
        self._intake, self._resuming, self._limits = intake, resuming, limits
        self._telling_of = telling_of

    async def answer(self, several: SeveralPrompts, call: Call, reply: Reply) -> None:
        """Answer all prompts of a call; left half-way, those that are open are abandoned.

        Raises:
            HeadraceError: a prompt was refused, or failed; nothing is held.
        """
        first = several.wanted[0]
        _check(several, call, self._limits)
        with _naming_the_prompt(first):
            self._intake.require_room(first)
        first = keyed(first, call, self._intake) or first
        reply.request_id = first.request_id
        named = [_named(each, first, number) for number, each in enumerate(several.wanted)]
        async for each in unhurried(named):
            with _naming_the_prompt(each):
                await self._intake.repeated(each)
        run = _Run(replace(several, wanted=named), first.request_id, reply, self)
        await run.to_its_end(at_once=self._limits.prompts_at_once)

    async def opened(self, wanted: Wanted, *, patiently: bool) -> tuple[Answer, ValidRequest]:
        """`patiently`: where there is no room now, wait for it as long as a request may."""
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + self._limits.max_patience_s
        while True:
            try:
                with _naming_the_prompt(wanted):
                    return await self._open(wanted)
            except _NO_ROOM as error:
                pause_s = error.retry_after_s or _RETRY_S
                if not patiently or now_s() + pause_s > until_s:
                    raise
            await asyncio.sleep(pause_s)

    async def _open(self, wanted: Wanted) -> tuple[Answer, ValidRequest]:
        if wanted.returns:
            return await answered_once(wanted, self._intake, self._resuming)
        return await self._intake.open(wanted)

    def telling(
        self, asked: Asked, wanted: Wanted, opened: tuple[Answer, ValidRequest]
    ) -> Telling | None:
        answer, request = opened
        return self._telling_of(asked, wanted, answer, request.prompt_ids)


class _Run:
    """One call: readers take its prompts in their order, each reads one after the other."""

    def __init__(
        self, several: SeveralPrompts, call_id: str, reply: Reply, calls: PromptCalls
    ) -> None:
        self._several, self._call_id, self._reply, self._calls = several, call_id, reply, calls
        self._left = deque(enumerate(several.wanted))
        self._open: set[int] = set()
        self._head: Head | None = None
        self._usage = Usage()
        self._choices = [b""] * len(several.wanted)
        """JSON of each prompt's choices, where the answer is not streamed."""
        self._writing = asyncio.Lock()
        self._began_s = asyncio.get_running_loop().time()

    async def to_its_end(self, *, at_once: int) -> None:
        readers = min(at_once, len(self._left))
        first_are_in = asyncio.Barrier(readers)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(readers):
                    tasks.create_task(self._read(first_are_in))
        except ExceptionGroup as group:
            # The others were cancelled by the first.
            raise group.exceptions[0] from group
        assert self._head is not None
        if self._several.wanted[0].streams:
            chunks = self._chunks(self._head, None)
            await self._reply.send_events(chunks.ending(self._usage), last=True)
        else:
            await self._reply.send_pieces(in_pieces(self._whole(self._head)))

    async def _read(self, first_are_in: asyncio.Barrier) -> None:
        is_first = True
        while self._left:
            number, wanted = self._left.popleft()
            opened = await self._calls.opened(self._in_time(wanted), patiently=not is_first)
            async with opened[0] as answer:
                if is_first:
                    await first_are_in.wait()
                is_first = False
                telling = self._calls.telling(self._several.asked, wanted, opened)
                self._open.add(number)
                try:
                    await self._tell(number, answer, telling)
                except GenerationFailed as failed:
                    await answer.settle()
                    raise failed.error from failed
                await answer.settle()
                self._open.discard(number)
                _add(self._usage, answer.usage())

    async def _tell(self, number: int, answer: Answer, telling: Telling | None) -> None:
        head = self._head_of(number, answer)
        if self._several.wanted[number].streams:
            await self._stream(number, answer, self._chunks(head, telling))
            return
        async for _ in answer:
            pass
        write = partial(whole_choices, COMPLETION, head, telling=telling)
        self._choices[number] = await written(write, answer.outcome())

    async def _stream(self, number: int, answer: Answer, chunks: Chunks) -> None:
        async for news in answer:
            events = chunks.said(news)
            if answer.queued is not None:
                # Why one: readers want to know that the call waits, not how often.
                events = queue_comment(answer.queued) if number == min(self._open) else ""
            if events:
                async with self._writing:
                    await self._reply.send_events(events, last=False)
            if answer.complete:
                return

    async def _whole(self, head: Head) -> AsyncIterator[bytes]:
        yield whole_opening(COMPLETION, head, self._usage)
        for number, choices in enumerate(self._choices):
            yield (b"," if number else b"") + choices
        yield b"]}"

    def _chunks(self, head: Head, telling: Telling | None) -> Chunks:
        return Chunks(
            COMPLETION,
            head,
            places=(),
            include_usage=self._several.include_usage,
            telling=telling,
            with_ids=False,
        )

    def _head_of(self, number: int, answer: Answer) -> Head:
        request = answer.request
        if self._head is None:
            created = int(answer.arrival_s)
            self._head = Head(self._call_id, request.model, created, f"fp_{request.weights}")
        first_choice = number * request.n
        # Why its own: a model may be loaded anew while a call goes on.
        return replace(self._head, fingerprint=f"fp_{request.weights}", first_choice=first_choice)

    def _in_time(self, wanted: Wanted) -> Wanted:
        """The call's own deadline as it is now."""
        if wanted.time_remaining_s is None:
            return wanted
        since_s = asyncio.get_running_loop().time() - self._began_s
        return replace(wanted, time_remaining_s=max(0.0, wanted.time_remaining_s - since_s))


def _check(several: SeveralPrompts, call: Call, limits: Limits) -> None:
    first, count = several.wanted[0], len(several.wanted)
    if count > limits.max_prompts:
        raise InvalidRequest(
            f"prompt has {count} prompts; one call may have {limits.max_prompts}. Send the others"
            " in further calls",
            field="prompt",
        )
    if first.detached:
        raise Unsupported(
            f"background is served for one prompt, and this call has {count}; send a call for each",
            field="background",
        )
    wants_ids = first.streams and call.headers.get(_RESUME.lower(), "").lower() == "true"
    if call.last_event_id or wants_ids:
        header = LAST_EVENT_ID if call.last_event_id else _RESUME
        raise Unsupported(
            f"{header} is not served for several prompts in one call, whose stream has no position"
            " to come back to; send a call for each prompt, or send an Idempotency-Key and repeat"
            " the call under it",
            field=header,
        )


def _named(wanted: Wanted, first: Wanted, number: int) -> Wanted:
    """By a name and a seed of its own, made from those of the call or of its key."""
    seed = wanted.seed
    if seed is None and first.seed is not None:
        seed = (first.seed + number) % 2**64
    request_id = f"{first.request_id}-{number}"
    return replace(wanted, request_id=request_id, seed=seed, returns=first.returns)


@contextmanager
def _naming_the_prompt(wanted: Wanted) -> Iterator[None]:
    """A refusal of a prompt says which one it is of."""
    try:
        yield
    except RequestError as error:
        field = wanted.prompt.field
        is_of_prompt = error.field == field or isinstance(error, ContextLengthExceeded)
        if not is_of_prompt or field in error.message:
            raise
        raise type(error)(f"{field}: {error.message}", field=error.field) from error


def _add(total: Usage, usage: Usage) -> None:
    for counted, tokens in usage.ListFields():
        setattr(total, counted.name, getattr(total, counted.name) + tokens)
