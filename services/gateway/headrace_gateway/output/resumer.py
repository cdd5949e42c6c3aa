"""Answers for callers that resume a request which another call has opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from headrace.bus import BusError
from headrace.errors import HeadraceError, InvalidRequest, RequestExists, RequestNotFound
from headrace.internal.v1.request_pb2 import Rendering, RequestRecord, Sampling
from headrace_gateway.base.generated_ids import candidate_models
from headrace_gateway.base.quoting import quoted
from headrace_gateway.base.request_keys import public_id, request_key
from headrace_gateway.models.catalog import Catalog, ServedModel
from headrace_gateway.models.text import StopStrings
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.assembler import OutputAssembler
from headrace_gateway.output.position import EventId, Offset, read_position
from headrace_gateway.request.generation import Generation, RecordedRequest, ValidRequest
from headrace_gateway.stream.stored_record import digest_of


class Attachable(Protocol):
    """A request that can be read, from its beginning."""

    @property
    def record(self) -> RequestRecord:
        """Without prompt and output."""
        ...

    @property
    def failed(self) -> bool:
        """It has ended, with an error."""
        ...

    async def open(self) -> Generation:
        """
        Raises:
            HeadraceError: it cannot be read after all.
        """
        ...


class Finding(Protocol):
    async def find(self, key: str, models: Iterable[str]) -> Attachable:
        """The request, of which one of these models is asked; nothing is held yet.

        Raises:
            RequestNotFound: it is unknown, or its result is not stored any more.
            CapacityError: it cannot be read from here now.
        """
        ...

    async def near(self, key: str) -> Attachable | None:
        """The request, if it is open at this gateway, or has ended and its result is kept.

        Raises:
            BusError: results cannot be read now.
        """
        ...


class AnswerResumer:
    def __init__(self, catalog: Catalog, finding: Finding) -> None:
        self._catalog, self._finding = catalog, finding

    async def resume(self, key: str, after: str, *, field: str = "after") -> Answer:
        """The rest of the answer to the request of this key.

        Raises:
            HeadraceError: there is none, or `after` is no place in it; nothing is held.
        """
        models = (served.card.model for served in self._catalog.all())
        found = await self._finding.find(key, candidate_models(public_id(key), models))
        return await self._open(found, after, field)

    async def resume_as(
        self,
        event: EventId,
        request: ValidRequest,
        *,
        field: str,
        seeded: bool = True,
        failed: bool = True,
        detached: bool = False,
        seen: Callable[[Generation], Generation] = lambda own: own,
    ) -> Answer:
        """The same for a request that was sent again.

        Args:
            field: the header that says so.
            seeded: the caller has chosen its seed.
            failed: also if it has ended with an error, which is the answer then.
            detached: as `find_as` has it.
            seen: what the answer reads, of what has been found.

        Raises:
            InvalidRequest: it is not the request that it was.
        """
        found = await self.find_as(event, request, field=field, seeded=seeded, detached=detached)
        if found.failed and not failed:
            raise RequestNotFound(f"request {event.request_id} has failed", field=field)
        return await self._open(found, event.position, field, seen)

    async def find_as(
        self,
        event: EventId,
        request: ValidRequest,
        *,
        field: str,
        seeded: bool = True,
        detached: bool = False,
    ) -> Attachable:
        """
        Args:
            detached: its name is to be that of a detached request; another that has it is in the
                way.

        Raises:
            RequestNotFound: the tenant has none.
            InvalidRequest: it is not the request that it was.
            RequestExists: the same, where `detached`.
            HeadraceError: it cannot be read now. Nothing is held.
        """
        key = request_key(request.tenant, event.request_id)
        found = await self._finding.find(key, [request.card.model])
        record = found.record
        if detached:
            if not (record.detached and same_request(record, request, seeded)):
                raise name_taken(event.request_id, field=field)
        elif not same_request(record, request, seeded):
            raise InvalidRequest(
                f"request {event.request_id} had other parameters than this one; repeat its"
                f" parameters, or omit {field}",
                field=field,
            )
        return found

    async def names_detached(self, key: str) -> bool:
        """Whether a detached request has this key, as far as is known without asking others."""
        try:
            found = await self._finding.near(key)
        except BusError:
            return False  # Nothing can be opened now either.
        return found is not None and found.record.detached

    async def _open(
        self,
        found: Attachable,
        after: str,
        field: str,
        seen: Callable[[Generation], Generation] = lambda own: own,
    ) -> Answer:
        record = found.record
        if not record.HasField("rendering"):
            raise RequestNotFound(
                f"request {public_id(record.request_id)} has no text output",
                field="request_id",
            )
        offsets = read_position(after, max(1, record.n), field=field)
        self._catalog.get(record.model)
        return self.answer(seen(await found.open()), record, offsets)

    def answer(
        self, generation: Generation, record: RequestRecord, offsets: Sequence[Offset] | None = None
    ) -> Answer:
        return rebuild_answer(self._catalog, generation, record, offsets)


def same_request(record: RequestRecord, request: ValidRequest, seeded: bool) -> bool:
    """Whether what was asked decides the same answer; `seeded`: its caller has chosen its seed."""
    same_seed = not seeded or record.seed == request.seed
    return record.rendering.digest == digest_of(request) and same_seed


def name_taken(request_id: str, *, field: str) -> HeadraceError:
    return RequestExists(
        f"request {quoted(request_id)} exists with other parameters; choose another request_id",
        field=field,
    )


def rebuild_answer(
    catalog: Catalog,
    generation: Generation,
    record: RequestRecord,
    offsets: Sequence[Offset] | None = None,
) -> Answer:
    """One reader's answer, in the words of the request that it is of.

    Raises:
        HeadraceError: its model is not known here.
    """
    served = catalog.get(record.model)
    request = RecordedRequest(record)
    made = make_assembler(request, served, record.sampling, record.rendering)
    return Answer(generation, request, made, served.tokenizer, offsets)


def make_assembler(
    request: RecordedRequest | ValidRequest,
    served: ServedModel,
    sampling: Sampling,
    rendering: Rendering,
) -> OutputAssembler:
    stops = StopStrings(rendering.stop) if rendering.stop else None
    silent = set(sampling.stop_token_ids)
    if not sampling.ignore_eos:
        silent.update(served.card.eos_token_ids)
    streams = [
        served.tokenizer.text_stream(
            stops,
            frozenset() if rendering.include_stop else frozenset(silent),
            keeps_special=rendering.keep_special_tokens,
            includes_stop=rendering.include_stop,
            unstopped_tokens=sampling.min_tokens,
        )
        for _ in range(request.n)
    ]
    return OutputAssembler(
        streams,
        prompt_tokens=request.prompt_tokens,
        request_id=request.request_id,
        calls_tools=rendering.calls_tools,
    )
