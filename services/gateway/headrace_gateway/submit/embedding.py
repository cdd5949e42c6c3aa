"""Computes vectors and scores: one call, as many requests as it needs, joined in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from headrace.errors import HeadraceError, InternalError
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import ModelTask, RequestOutcome, Usage
from headrace_gateway.base.cooperative import cooperatively
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.cache.vectors import VectorCache
from headrace_gateway.checks.inputs import (
    check_inputs,
    check_lengths,
    longest_input,
    prefixed,
    prompt_text,
    requests_for,
)
from headrace_gateway.checks.validation import priority, times
from headrace_gateway.models.catalog import Models, ServedModel
from headrace_gateway.request.generation import (
    Admission,
    ChoiceEnded,
    Failed,
    Generation,
    Input,
    ValidRequest,
)
from headrace_gateway.request.generation_request import (
    AnyInput,
    Text,
    TextPair,
    TokenIds,
    VectorRequest,
)
from headrace_gateway.request.payer import TokenRange
from headrace_gateway.request.tasks import require_task, task_of
from headrace_gateway.request.vectors import check_dimensions, cosine, shortened, values_of
from headrace_gateway.submit.submitter import payer_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Embedded:
    card: ModelCard
    vectors: list[bytes]
    """In the order of the inputs; float32, little-endian."""
    prompt_tokens: int
    arrival_s: float
    """Of the call, in Unix time."""


@dataclass(frozen=True, slots=True)
class Scored:
    card: ModelCard
    relevances: list[float]
    """Of each document to its query, in the order of the documents."""
    prompt_tokens: int
    arrival_s: float


@dataclass(frozen=True, slots=True)
class Query:
    """A query for which documents are ranked."""

    requested: VectorRequest
    """Its inputs are the documents, as `Text`."""
    text: str
    field: str = "query"


@dataclass(frozen=True, slots=True)
class Ranked:
    card: ModelCard
    rankings: list[tuple[int, float]]
    """Document and relevance, best first."""
    prompt_tokens: int


class Embedding:
    """Computes vectors and scores for the APIs.

    A call gets its vectors while its requests are open: they are settled when the `with` is
    left, or abandoned if it is left by an error or because the client disconnected.
    """

    def __init__(
        self,
        catalog: Models,
        admission: Admission,
        settings: GatewaySettings,
        *,
        cache: VectorCache | None = None,
    ) -> None:
        """`cache`: None: nothing is cached."""
        self._catalog, self._admission, self._settings = catalog, admission, settings
        self._cache = cache

    @asynccontextmanager
    async def embedded(
        self, requested: VectorRequest, *, dimensions: int | None, prompt_name: str | None
    ) -> AsyncIterator[Embedded]:
        """
        Raises:
            HeadraceError: it was refused, or failed; nothing is held.
        """
        served = self._catalog.get(requested.model, requested.caller)
        card = served.card
        require_task(card, ModelTask.MODEL_TASK_EMBED)
        check_dimensions(dimensions, card)
        prompt = prompt_text(card, prompt_name, requested.name_of("prompt_name"))
        inputs = prefixed(requested.inputs, prompt)
        async with self._computed(requested, inputs, served) as embedded:
            vectors = [
                shortened(vector, dimensions) async for vector in cooperatively(embedded.vectors)
            ]
            yield Embedded(card, vectors, embedded.prompt_tokens, embedded.arrival_s)

    @asynccontextmanager
    async def pooled(
        self, requested: VectorRequest, *tasks: ModelTask.ValueType
    ) -> AsyncIterator[Embedded]:
        """What a model of one of these tasks makes of the inputs, without its prompts.

        Raises:
            HeadraceError: as `embedded`.
        """
        served = self._catalog.get(requested.model, requested.caller)
        require_task(served.card, *tasks)
        async with self._computed(requested, requested.inputs, served) as embedded:
            yield embedded

    @asynccontextmanager
    async def ranked(self, query: Query) -> AsyncIterator[Ranked]:
        """
        Raises:
            HeadraceError: as `embedded`.
        """
        queries = [Text(query.text, query.field)]
        async with self.scored(query.requested, queries) as scored:
            rankings = sorted(enumerate(scored.relevances), key=lambda each: -each[1])
            yield Ranked(scored.card, rankings, scored.prompt_tokens)

    @asynccontextmanager
    async def scored(
        self, requested: VectorRequest, queries: Sequence[Text]
    ) -> AsyncIterator[Scored]:
        """Score the documents, which are the inputs of `requested`, each for the only query or for
        the query of the same index.

        Raises:
            HeadraceError: as `embedded`.
        """
        served = self._catalog.get(requested.model, requested.caller)
        card = served.card
        require_task(card, ModelTask.MODEL_TASK_SCORE, ModelTask.MODEL_TASK_EMBED)
        scores = task_of(card) == ModelTask.MODEL_TASK_SCORE
        inputs = _pairs(queries, requested) if scores else _each_alone(queries, requested, card)
        async with self._computed(requested, inputs, served) as embedded:
            values = [values_of(vector) for vector in embedded.vectors]
            if scores:
                relevances = [score for (score,) in values]
            else:
                of_queries, documents = values[: len(queries)], values[len(queries) :]
                pairs = zip(_for_each(of_queries, documents), documents, strict=True)
                relevances = [cosine(*pair) async for pair in cooperatively(pairs)]
            yield Scored(card, relevances, embedded.prompt_tokens, embedded.arrival_s)

    @asynccontextmanager
    async def _computed(
        self,
        requested: VectorRequest,
        inputs: Sequence[AnyInput],
        served: ServedModel,
    ) -> AsyncIterator[Embedded]:
        card = served.card
        check_inputs(inputs, requested, card, self._settings)
        cache = self._cache if requested.cached else None
        if cache is not None and not cache.may_have(requested.caller.tenant):
            cache = None
        if cache is None:
            self._check_load(requested, served, len(inputs))
        found = await _tokenized(inputs, served, longest_input(requested, card))
        check_lengths(inputs, requested, card, found)
        if cache is None:
            async with self._run(requested, card, found) as embedded:
                yield embedded
            return
        known = cache.find(requests_for(requested, card, self._settings, found)[0], found)
        async with self._completed(requested, served, found, known, cache) as embedded:
            yield embedded

    @asynccontextmanager
    async def _completed(
        self,
        requested: VectorRequest,
        served: ServedModel,
        inputs: Sequence[Input],
        known: Sequence[bytes | None],
        cache: VectorCache,
    ) -> AsyncIterator[Embedded]:
        """Compute the vectors that are not known."""
        card = served.card
        missing = [each for each, vector in zip(inputs, known, strict=True) if vector is None]
        request = requests_for(requested, card, self._settings, inputs)[0]
        prompt_tokens = sum(len(each.token_ids) for each in inputs)
        if hits := len(inputs) - len(missing):
            await cache.count(request, hits, whole=not missing)
        if not missing:
            vectors = [vector for vector in known if vector is not None]
            yield Embedded(card, vectors, prompt_tokens, cache.unix_s)
            return
        self._check_load(requested, served, len(missing))
        async with self._run(requested, card, missing) as made:
            cache.keep(request, missing, made.vectors)
            computed = iter(made.vectors)
            vectors = [next(computed) if vector is None else vector for vector in known]
            yield Embedded(card, vectors, prompt_tokens, made.arrival_s)

    def _check_load(self, requested: VectorRequest, served: ServedModel, count: int) -> None:
        _, patience_s = times(requested, self._settings)
        self._admission.check(
            served.card.model,
            priority(requested),
            payer=payer_of(requested, served),
            tokens=TokenRange(count, count * served.card.context_tokens),
            patience_s=patience_s,
        )

    @asynccontextmanager
    async def _run(
        self, requested: VectorRequest, card: ModelCard, inputs: Sequence[Input]
    ) -> AsyncIterator[Embedded]:
        requests = requests_for(requested, card, self._settings, inputs)
        async with _open(self._admission, requests) as parts:
            vectors = [vector for part in parts for vector in await part.vectors()]
            prompt_tokens = sum(part.request.prompt_tokens for part in parts)
            yield Embedded(card, vectors, prompt_tokens, parts[0].generation.arrival_s)


class _Part:
    """One request of a call, and whether it has been settled."""

    def __init__(self, request: ValidRequest, generation: Generation) -> None:
        self.request, self.generation = request, generation
        self.settled = False

    async def vectors(self) -> list[bytes]:
        """Return the vectors in the order of the inputs; wait for all of them.

        Raises:
            HeadraceError: the error that ended the request.
        """
        found: dict[int, bytes] = {}
        async for events in self.generation.events():
            for event in events:
                if isinstance(event, Failed):
                    await self.settle(event.error)
                    raise event.error
                if isinstance(event, ChoiceEnded):
                    found[event.choice] = event.vector
        size = 4 * self.request.card.vectors.dimensions
        vectors = [found.get(choice, b"") for choice in range(self.request.n)]
        if strays := [i for i, vector in enumerate(vectors) if len(vector) != size]:
            raise InternalError(
                f"input {strays[0]} of request {self.request.request_id} came to"
                f" {len(vectors[strays[0]])} bytes instead of {size}"
            )
        return vectors

    async def settle(self, error: HeadraceError | None = None) -> None:
        # Why without the vectors: no call can resume them, and they are large.
        usage = Usage(prompt_tokens=self.request.prompt_tokens)
        status = None if error is None else to_status(error)
        self.settled = True
        await self.generation.settle(RequestOutcome(usage=usage, error=status))


@asynccontextmanager
async def _open(
    admission: Admission, requests: Sequence[ValidRequest]
) -> AsyncIterator[list[_Part]]:
    opened = await admission.open_all(requests)
    parts = [_Part(*each) for each in zip(requests, opened, strict=True)]
    try:
        yield parts
        for part in parts:
            await part.settle()
    finally:
        for part in parts:
            if not part.settled:
                await part.generation.abandon()


async def _tokenized(
    inputs: Sequence[AnyInput], served: ServedModel, cut_tokens: int | None
) -> list[Input]:
    texts = [each for each in inputs if not isinstance(each, TokenIds)]
    encoded = iter(await served.tokenizer.encode_inputs(texts, cut_tokens=cut_tokens))
    return [
        Input(tuple(each.token_ids[:cut_tokens])) if isinstance(each, TokenIds) else next(encoded)
        for each in inputs
    ]


def _pairs(queries: Sequence[Text], requested: VectorRequest) -> list[AnyInput]:
    documents = [each for each in requested.inputs if isinstance(each, Text)]
    return [
        TextPair(query.text, document.text, document.field)
        for query, document in zip(_for_each(queries, documents), documents, strict=True)
    ]


def _each_alone(
    queries: Sequence[Text], requested: VectorRequest, card: ModelCard
) -> list[AnyInput]:
    prompts = card.vectors.prompts
    default = prompts.get(card.vectors.default_prompt, "")
    inputs = prefixed(queries, prompts.get("query", default))
    return [*inputs, *prefixed(requested.inputs, prompts.get("document", default))]


def _for_each(queries: Sequence[T], documents: Sequence[object]) -> Sequence[T]:
    """Return the query of each document."""
    return list(queries) * len(documents) if len(queries) == 1 else queries
