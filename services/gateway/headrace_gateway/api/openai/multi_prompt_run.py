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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from headrace.errors import (
    BrokerUnavailable,
    ContextLengthExceeded,
    HeadraceError,
    LaneFull,
    NoWorker,
    PatienceExhausted,
    QuotaUnavailable,
    RateLimitExceeded,
    RequestError,
)
from headrace.v1.common_pb2 import Usage
from headrace_gateway.api.bodies.generation import CompletionBody
from headrace_gateway.api.http.deliver import comment, serialize_in_thread
from headrace_gateway.api.http.endpoint import HttpCall
from headrace_gateway.api.openai.chunks import (
    COMPLETION,
    ChunkFormatter,
    ResponseFields,
    choices_json,
    response_start,
)
from headrace_gateway.api.openai.logprobs_formatter import LogprobsFormatter, formatter_for
from headrace_gateway.base.keepalive import kept_alive
from headrace_gateway.output.answering import Answer, GenerationFailed
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.request.generation_request import GenerationRequest

_RETRY_S = 1.0

_NO_ROOM = (
    *(LaneFull, PatienceExhausted, NoWorker, BrokerUnavailable),
    *(RateLimitExceeded, QuotaUnavailable),
)
"""Refusals after which a prompt is retried once others of its call have been admitted."""


class MultiPromptRun:
    """One call: each reader takes the next prompt, and reads its answer to the end."""

    def __init__(
        self, http: HttpCall, body: CompletionBody, requests: Sequence[GenerationRequest]
    ) -> None:
        """`requests`: one for each prompt, each with an id of its own."""
        self._services, self._reply, self._body = http.services, http.reply, body
        self._settings = http.services.settings
        self._left = deque(enumerate(requests))
        self._readers: list[asyncio.Task[None]] = []
        self._not_admitted = 0
        """How many readers have a first prompt that is not admitted yet."""
        self._first_admitted = asyncio.Event()
        """Set once all first prompts are admitted, or the call has failed."""
        self._open: dict[int, Answer] = {}
        self._error: Exception | None = None
        self._head: ResponseFields | None = None
        self._usage = Usage()
        self._choices = [b""] * len(requests)
        """JSON of each prompt's choices, where the answer is not streamed."""
        self._began_s = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Answer the call.

        Raises:
            HeadraceError: a prompt was refused, or failed; nothing is held.
        """
        # Why the limits: what they can never admit together would be refused each time.
        most = self._services.submitter.most_at_once(self._left[0][1])
        self._not_admitted = min(
            self._settings.prompts_at_once, len(self._left), most or len(self._left)
        )
        async with asyncio.TaskGroup() as tasks:
            readers = range(self._not_admitted)
            self._readers = [tasks.create_task(self._read_or_stop()) for _ in readers]
            await self._first_admitted.wait()
            try:
                await self._wait()
            except HeadraceError as error:
                await self._stop(error)
        if self._error is not None:
            raise self._error
        assert self._head is not None
        if self._body.stream:
            chunks = ChunkFormatter(self._head, places=(), usage=self._body.stream_options)
            await self._reply.send_events(chunks.ending(self._usage), last=True)
        else:
            start = response_start(self._head, self._usage)
            self._reply.usage = self._usage
            await self._reply.send_list(start, self._choices, b"]}")

    async def _wait(self) -> None:
        """Wait until all readers have ended, and keep the stream alive meanwhile."""
        if not self._body.stream:
            await asyncio.wait(self._readers)
            return
        async with kept_alive(self._reply, self._keep_alive_comment, self._settings):
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
            requested = self._with_time_remaining(requested)
            answer, valid = await self._opened(requested, wait_for_room=not is_first)
            async with answer:
                if is_first:
                    await self._wait_for_first_prompts()
                is_first = False
                options, prompt_ids = self._body.output_options, valid.prompt_ids
                formatter = formatter_for(options, requested, answer, prompt_ids)
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
        if self._body.stream:
            chunks = ChunkFormatter(
                head,
                places=(),
                usage=self._body.stream_options,
                prompt_tokens=answer.request.prompt_tokens,
                formatter=formatter,
            )
            await self._stream(answer, chunks)
            return
        async for _ in answer:
            pass
        write = partial(choices_json, head, formatter=formatter)
        self._choices[number] = await serialize_in_thread(write, answer.outcome())

    async def _stream(self, answer: Answer, chunks: ChunkFormatter) -> None:
        async for deltas in answer:
            if answer.complete:
                await answer.settle()
            if events := chunks.events(deltas):
                await self._reply.send_events(events, last=False)
            if answer.complete:
                return

    def _head_of(self, number: int, answer: Answer) -> ResponseFields:
        """Return the fields of one answer: the call's, with the answer's own fingerprint.

        Why its own: a model may be loaded again while the call goes on.
        """
        own = ResponseFields.of(COMPLETION, answer, first_choice=number * answer.request.n)
        self._head = self._head or replace(own, request_id=self._reply.request_id, first_choice=0)
        return replace(own, request_id=self._head.request_id, created=self._head.created)

    async def _opened(
        self, requested: GenerationRequest, *, wait_for_room: bool
    ) -> tuple[Answer, ValidRequest]:
        """Return the answer to one prompt, and its request.

        Args:
            wait_for_room: where the lane is full, retry for as long as a request may wait.

        Raises:
            HeadraceError: it was refused; nothing is held.
        """
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + self._settings.max_patience_s
        while True:
            try:
                with name_prompt_in_errors(requested):
                    return await self._open_or_join(requested)
            except _NO_ROOM as error:
                pause_s = error.retry_after_s or _RETRY_S
                if not wait_for_room or now_s() + pause_s > until_s:
                    raise
            await asyncio.sleep(pause_s)

    async def _open_or_join(self, requested: GenerationRequest) -> tuple[Answer, ValidRequest]:
        if requested.idempotent:
            return await self._services.opener.open_or_join(requested)
        return await self._services.submitter.open(requested)

    def _with_time_remaining(self, requested: GenerationRequest) -> GenerationRequest:
        """Return the request with what is left of the call's own deadline."""
        if requested.time_remaining_s is None:
            return requested
        since_s = asyncio.get_running_loop().time() - self._began_s
        return replace(requested, time_remaining_s=max(0.0, requested.time_remaining_s - since_s))


@contextmanager
def name_prompt_in_errors(requested: GenerationRequest) -> Iterator[None]:
    """Name the prompt in a refusal that is raised inside."""
    try:
        yield
    except RequestError as error:
        field = requested.prompt.field
        is_of_prompt = error.field == field or isinstance(error, ContextLengthExceeded)
        if not is_of_prompt or field in error.message:
            raise
        raise type(error)(f"{field}: {error.message}", field=error.field) from error


def _add(total: Usage, usage: Usage) -> None:
    for counted, tokens in usage.ListFields():
        setattr(total, counted.name, getattr(total, counted.name) + tokens)
