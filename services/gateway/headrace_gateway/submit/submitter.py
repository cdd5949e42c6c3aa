"""Checks, tokenizes and submits a request, in the order in which it can be refused most cheaply."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import blake2b

from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.base.generated_ids import with_lane
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.cache.responses import ResponseCache
from headrace_gateway.checks.apply_reasoning import apply_reasoning
from headrace_gateway.checks.apply_tools import apply_tools
from headrace_gateway.checks.fitting import check_prompt_size, cut_to_fit
from headrace_gateway.checks.validation import check, priority, times, valid_request
from headrace_gateway.models.catalog import Models, ServedModel
from headrace_gateway.output.answering import Answer, make_answer
from headrace_gateway.request.generation import Admission, Generation, ValidRequest
from headrace_gateway.request.generation_request import GenerationRequest, Terms, TokenIds
from headrace_gateway.request.payer import Payer, TokenRange, first_output
from headrace_gateway.request.tasks import require_task
from headrace_gateway.submit.output_marks import add_marks


class Submitter:
    def __init__(
        self,
        catalog: Models,
        admission: Admission,
        settings: GatewaySettings,
        *,
        responses: ResponseCache | None = None,
    ) -> None:
        """`responses`: None: nothing is cached."""
        self._catalog = catalog
        self._admission = admission
        self._settings = settings
        self._responses = responses

    def known(self, model: str) -> str:
        """Return the model that this name means, or an empty text. It is for metric labels, which a
        client must not create: adapters have none of their own."""
        return self._catalog.base(model)

    async def open(
        self,
        requested: GenerationRequest,
        *,
        seen: Callable[[Generation], Generation] = lambda own: own,
    ) -> tuple[Answer, ValidRequest]:
        """Check, tokenise and submit; the cheap refusals come first.

        `seen`: the generation that the answer reads, of the one that was opened.

        Raises:
            HeadraceError: it was refused; nothing is held.
        """
        if requested.cached and self._responses is not None:
            # Why without a look at the lane: what the cache has needs none.
            served, requested = self._checked(requested)
            request = await self._request(requested, served)
            seeded = requested.seed is not None
            admit = partial(self._admit, requested, served, request)
            generation = await self._responses.open(request, admit, seeded=seeded)
        else:
            served, requested = self._admissible(requested)
            request = await self._request(requested, served)
            generation = await self._admission.open(request)
        generation = seen(generation)
        answer = make_answer(generation, request, served, request.sampling, request.rendering)
        return answer, request

    def require_room(self, requested: GenerationRequest) -> None:
        """Refuse now what would be refused whatever the length of its prompt.

        Raises:
            HeadraceError: as `open`.
        """
        self._admissible(requested)

    def _admissible(self, requested: GenerationRequest) -> tuple[ServedModel, GenerationRequest]:
        served, requested = self._checked(requested)
        self._check_load(requested, served)
        return served, requested

    async def _admit(
        self, requested: GenerationRequest, served: ServedModel, request: ValidRequest
    ) -> Generation:
        self._check_load(requested, served)
        return await self._admission.open(request)

    def _check_load(self, requested: GenerationRequest, served: ServedModel) -> None:
        _, patience_s = times(requested, self._settings)
        self._admission.check(
            served.card.model,
            priority(requested),
            payer=payer_of(requested, served),
            tokens=_tokens(requested, served.card, self._settings.quota_ahead_tokens),
            patience_s=patience_s,
        )

    def most_at_once(self, requested: GenerationRequest) -> int | None:
        """Return how many such requests the caller's limits can admit at one moment; None: any
        number.

        Raises:
            ModelNotFound: there is no such model.
        """
        served = self._catalog.get(requested.model, requested.caller)
        return self._admission.most_at_once(payer_of(requested, served))

    async def repeated(self, requested: GenerationRequest) -> ValidRequest:
        """Return the request as it would be opened, without opening it or checking its lane.

        Raises:
            HeadraceError: it would be refused.
        """
        served, requested = self._checked(requested)
        return await self._request(requested, served)

    def _checked(self, requested: GenerationRequest) -> tuple[ServedModel, GenerationRequest]:
        served = self._catalog.get(requested.model, requested.caller)
        require_task(served.card, ModelTask.MODEL_TASK_GENERATE)
        requested = replace(
            requested, request_id=with_lane(served.card.model, requested.request_id)
        )
        requested = apply_reasoning(apply_tools(requested, served.card), served.card)
        check(requested, served.card, self._settings)
        return served, requested

    async def _request(self, requested: GenerationRequest, served: ServedModel) -> ValidRequest:
        prompt_ids = cut_to_fit(requested, served.card, await _token_ids(requested, served))
        request = valid_request(
            requested,
            served.card,
            self._settings,
            prompt_ids,
            draw_seed=lambda: self._seed_of(requested),
        )
        add_marks(request, requested, served)
        for run in served.tokenizer.runs_of(requested.parameters.bad_words):
            request.sampling.bad_words.add(token_ids=run)
        if served.adapter is not None:
            adapter = served.adapter
            request = replace(request, adapter=adapter.name, adapter_digest=adapter.digest)
        return request

    def _seed_of(self, requested: GenerationRequest) -> int:
        """Draw a random seed; derive it from the id if the request may be sent twice.

        Why: of two calls with the same id the first one runs, and the other call may by then have
        sent its client the seed.
        """
        if not (requested.background or requested.idempotent):
            return secrets.randbits(64)
        name = f"{requested.caller.tenant}\0{requested.request_id}"
        return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())

    async def tokenize(self, requested: GenerationRequest) -> tuple[list[int], list[str]]:
        """Return the token ids of a prompt, and the text of each; nothing is admitted.

        Raises:
            HeadraceError: the model is not known, or the prompt is no prompt for it.
        """
        served, token_ids = await self.encoded(requested)
        return token_ids, await served.tokenizer.pieces(token_ids)

    async def encoded(self, requested: GenerationRequest) -> tuple[ServedModel, list[int]]:
        """Return the model, and a prompt's token ids as it would receive them; nothing is admitted.

        Raises:
            HeadraceError: as `tokenize`.
        """
        served = self._catalog.get(requested.model, requested.caller)
        requested = apply_reasoning(apply_tools(requested, served.card), served.card)
        check_prompt_size(requested, served.card, self._settings)
        return served, await _token_ids(requested, served)


def payer_of(requested: Terms, served: ServedModel) -> Payer:
    """Return whose limits a request of this model counts against."""
    caller, batch = requested.caller, requested.row is not None
    is_part = isinstance(requested, GenerationRequest) and requested.is_part
    return Payer(caller.tenant, caller.key_id, served.name, batch=batch, is_part=is_part)


def _tokens(requested: GenerationRequest, card: ModelCard, ahead: int) -> TokenRange:
    """Return how many tokens a request may need, as far as is known before its prompt is
    tokenised.

    Args:
        ahead: how much output is reserved before it is made.
    """
    prompt = requested.prompt
    fewest = len(prompt.token_ids) if isinstance(prompt, TokenIds) else 1
    output = requested.n * max(1, requested.parameters.max_tokens)
    first = first_output(output, batch=requested.row is not None, ahead=ahead)
    return TokenRange(fewest + first, requested.n * card.context_tokens)


async def _token_ids(requested: GenerationRequest, served: ServedModel) -> list[int]:
    if isinstance(requested.prompt, TokenIds):
        return list(requested.prompt.token_ids)
    return await served.tokenizer.encode(
        requested.prompt, special_tokens=requested.adds_special_tokens
    )
