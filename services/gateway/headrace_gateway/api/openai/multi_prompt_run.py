"""Joins the answers to several prompts of one call into one response.

For the prompts ["a", "b", "c"] with `n` = 2, `stream` and two readers:

    readers   one takes "a", the other "b"; both are submitted
    head      nothing is sent until both are admitted; if one is refused, its error is the response
    "b"       its first delta is sent as choice 2: prompt 1 times n 2, plus its own choice 0
    "a"       its deltas are sent as choices 0 and 1, between those of "b", as they come
    "a" ends  its reader takes "c", and waits for room if the lane is full: choices 4 and 5
    end       once all have ended, their summed usage is sent, and `data: [DONE]`
    failure   if "b" fails, the other reader is cancelled, and the error of "b" ends the response

Without `stream` each reader keeps the JSON of its choices, which are sent in the prompts' order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from headrace.errors import HeadraceError
from headrace.v1.common_pb2 import Usage
from headrace_gateway.api.bodies.output_options import OutputOptions
from headrace_gateway.api.http.deliver import comment, serialize_in_thread
from headrace_gateway.api.http.reply import Reply
from headrace_gateway.api.openai.chunks import (
    COMPLETION,
    ChunkFormatter,
    ResponseFields,
    UsageOptions,
    choices_json,
    response_start,
)
from headrace_gateway.api.openai.logprobs_formatter import LogprobsFormatter
from headrace_gateway.base.cooperative import joined_chunks
from headrace_gateway.base.keepalive import kept_alive
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.output.answering import Answer, GenerationFailed
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.request.generation_request import GenerationRequest


class MakeFormatter(Protocol):
    def __call__(
        self,
        options: OutputOptions,
        requested: GenerationRequest,
        answer: Answer,
        prompt_ids: Sequence[int],
    ) -> LogprobsFormatter | None:
        """What an answer has beside its text, where that was asked for."""
        ...


@dataclass(frozen=True, slots=True)
class MultiPromptRequest:
    """The prompts of one call, and what is sent of each answer."""

    requested: Sequence[GenerationRequest]
    """One for each prompt; they differ in the prompt alone."""
    options: OutputOptions
    counted: UsageOptions
    make_formatter: MakeFormatter


class PromptOpener(Protocol):
    async def opened(
        self, requested: GenerationRequest, *, wait_for_room: bool
    ) -> tuple[Answer, ValidRequest]:
        """The answer to one prompt, and its request.

        Args:
            wait_for_room: where the lane is full, retry for as long as a request may wait.

        Raises:
            HeadraceError: it was refused; nothing is held.
        """
        ...


class MultiPromptRun:
    """One call: each reader takes the next prompt, and reads its answer to the end."""

    def __init__(
        self, several: MultiPromptRequest, call_id: str, reply: Reply, prompts: PromptOpener
    ) -> None:
        self._several, self._call_id, self._reply, self._prompts = several, call_id, reply, prompts
        self._streams = several.requested[0].stream
        self._left = deque(enumerate(several.requested))
        self._readers: list[asyncio.Task[None]] = []
        self._not_admitted = 0
        """How many readers have a first prompt that is not admitted yet."""
        self._first_admitted = asyncio.Event()
        """Set once all first prompts are admitted, or the call has failed."""
        self._open: dict[int, Answer] = {}
        self._error: Exception | None = None
        self._head: ResponseFields | None = None
        self._usage = Usage()
        self._choices = [b""] * len(several.requested)
        """JSON of each prompt's choices, where the answer is not streamed."""
        self._began_s = asyncio.get_running_loop().time()

    async def run(self, settings: GatewaySettings) -> None:
        """Answer the call.

        Raises:
            HeadraceError: a prompt was refused, or failed; nothing is held.
        """
        self._not_admitted = min(settings.prompts_at_once, len(self._left))
        async with asyncio.TaskGroup() as tasks:
            readers = range(self._not_admitted)
            self._readers = [tasks.create_task(self._read_or_stop()) for _ in readers]
            await self._first_admitted.wait()
            try:
                await self._wait(settings)
            except HeadraceError as error:
                await self._stop(error)
        if self._error is not None:
            raise self._error
        assert self._head is not None
        if self._streams:
            chunks = self._chunks(self._head)
            await self._reply.send_events(chunks.ending(self._usage), last=True)
        else:
            await self._reply.send_pieces(joined_chunks(self._whole(self._head)))

    async def _wait(self, settings: GatewaySettings) -> None:
        """Wait until all readers have ended, and keep the stream alive meanwhile."""
        if not self._streams:
            await asyncio.wait(self._readers)
            return
        async with kept_alive(self._reply, self._keep_alive_comment, settings):
            await asyncio.wait(self._readers)

    def _keep_alive_comment(self) -> str:
        oldest = self._open[min(self._open)] if self._open else None
        return comment(None if oldest is None else oldest.queued, ids=False)

    async def _read_or_stop(self) -> None:
        try:
            await self._read()
        except Exception as error:  # noqa: BLE001  # it is raised once the others have left
            await self._stop(error)

    async def _stop(self, error: Exception) -> None:
        """End the call with its first error."""
        # Why under the lock: a cancelled write would leave half a head behind.
        async with self._reply.write_lock:
            self._error = self._error or error
            for reader in self._readers:
                if reader is not asyncio.current_task():
                    reader.cancel()
        self._first_admitted.set()

    async def _read(self) -> None:
        is_first = True
        while self._left:
            number, requested = self._left.popleft()
            opened = self._prompts.opened(
                self._with_time_remaining(requested), wait_for_room=not is_first
            )
            answer, request = await opened
            async with answer:
                if is_first:
                    await self._wait_for_first_prompts()
                is_first = False
                options, prompt_ids = self._several.options, request.prompt_ids
                formatter = self._several.make_formatter(options, requested, answer, prompt_ids)
                self._open[number] = answer
                try:
                    await self._send(number, answer, formatter)
                except GenerationFailed as failed:
                    await answer.settle()
                    raise failed.error from failed
                await answer.settle()
                del self._open[number]
                _add(self._usage, answer.usage())

    async def _wait_for_first_prompts(self) -> None:
        self._not_admitted -= 1
        if not self._not_admitted:
            self._first_admitted.set()
        await self._first_admitted.wait()

    async def _send(self, number: int, answer: Answer, formatter: LogprobsFormatter | None) -> None:
        head = self._head_of(number, answer)
        if self._streams:
            chunks = self._chunks(head, answer.request.prompt_tokens, formatter)
            await self._stream(answer, chunks)
            return
        async for _ in answer:
            pass
        write = partial(choices_json, COMPLETION, head, formatter=formatter)
        self._choices[number] = await serialize_in_thread(write, answer.outcome())

    async def _stream(self, answer: Answer, chunks: ChunkFormatter) -> None:
        async for news in answer:
            if events := chunks.events(news):
                await self._reply.send_events(events, last=False)
            if answer.complete:
                return

    async def _whole(self, head: ResponseFields) -> AsyncIterator[bytes]:
        yield response_start(COMPLETION, head, self._usage)
        for number, choices in enumerate(self._choices):
            yield (b"," if number else b"") + choices
        yield b"]}"

    def _chunks(
        self,
        head: ResponseFields,
        prompt_tokens: int = 0,
        formatter: LogprobsFormatter | None = None,
    ) -> ChunkFormatter:
        counted = self._several.counted
        return ChunkFormatter(
            COMPLETION,
            head,
            places=(),
            include_usage=counted.include_usage,
            prompt_tokens=prompt_tokens if counted.continuous_usage else None,
            formatter=formatter,
        )

    def _head_of(self, number: int, answer: Answer) -> ResponseFields:
        request = answer.request
        if self._head is None:
            created = int(answer.arrival_s)
            self._head = ResponseFields(
                self._call_id, request.model, created, f"fp_{request.weights}"
            )
        first_choice = number * request.n
        # Why its own: a model may be loaded anew while a call goes on.
        return replace(self._head, fingerprint=f"fp_{request.weights}", first_choice=first_choice)

    def _with_time_remaining(self, requested: GenerationRequest) -> GenerationRequest:
        """Return the request with what is left of the call's own deadline."""
        if requested.time_remaining_s is None:
            return requested
        since_s = asyncio.get_running_loop().time() - self._began_s
        return replace(requested, time_remaining_s=max(0.0, requested.time_remaining_s - since_s))


def _add(total: Usage, usage: Usage) -> None:
    for counted, tokens in usage.ListFields():
        setattr(total, counted.name, getattr(total, counted.name) + tokens)
