"""From what a caller wants to an open generation: the order in which it is refused or let in."""

from __future__ import annotations

import secrets
from dataclasses import replace

from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.answering import Answer
from headrace_gateway.catalog import Catalog, ServedModel
from headrace_gateway.generation import Admission, ValidRequest
from headrace_gateway.limits import Limits
from headrace_gateway.offering import with_tools
from headrace_gateway.tasks import require_task
from headrace_gateway.text import StopStrings
from headrace_gateway.transcript import Transcript
from headrace_gateway.validation import check, check_prompt_size, priority, times, valid_request
from headrace_gateway.wanted import TokenIds, Wanted


class Intake:
    def __init__(self, catalog: Catalog, admission: Admission, limits: Limits) -> None:
        self._catalog = catalog
        self._admission = admission
        self._limits = limits

    def known(self, model: str) -> str:
        """The model that this name asks for, if there is one. For labels, which callers must not
        make: adapters have none of their own."""
        return self._catalog.base(model)

    async def open(self, wanted: Wanted) -> Answer:
        """Check, tokenise and submit; the cheap refusals come first.

        Raises:
            HeadraceError: it was refused; nothing is held.
        """
        served = self._catalog.get(wanted.model)
        require_task(served.card, ModelTask.MODEL_TASK_GENERATE)
        wanted = with_tools(wanted, served.card)
        check(wanted, served.card, self._limits)
        _, patience_s = times(wanted, self._limits)
        lane = priority(wanted, self._limits)
        self._admission.check(served.card.model, lane, patience_s=patience_s)
        prompt_ids = await _token_ids(wanted, served)
        request = valid_request(
            wanted, served.card, self._limits, prompt_ids, draw_seed=lambda: secrets.randbits(64)
        )
        if served.adapter is not None:
            adapter = served.adapter
            request = replace(request, adapter=adapter.name, adapter_digest=adapter.digest)
        generation = await self._admission.open(request)
        transcript = _transcript(request, wanted, served)
        return Answer(generation, request, transcript, served.tokenizer)

    async def tokenize(self, wanted: Wanted) -> tuple[list[int], list[str]]:
        """Token ids of a prompt, and the text of each; nothing is admitted.

        Raises:
            HeadraceError: the model is not known, or the prompt is no prompt for it.
        """
        served = self._catalog.get(wanted.model)
        check_prompt_size(wanted, served.card, self._limits)
        token_ids = await _token_ids(wanted, served)
        return token_ids, await served.tokenizer.pieces(token_ids)


async def _token_ids(wanted: Wanted, served: ServedModel) -> list[int]:
    if isinstance(wanted.prompt, TokenIds):
        return list(wanted.prompt.token_ids)
    return await served.tokenizer.encode(wanted.prompt)


def _transcript(request: ValidRequest, wanted: Wanted, served: ServedModel) -> Transcript:
    stops = StopStrings(wanted.parameters.stop) if wanted.parameters.stop else None
    silent = set(request.sampling.stop_token_ids)
    if not request.sampling.ignore_eos:
        silent.update(request.card.eos_token_ids)
    tokenizer = served.tokenizer
    streams = [tokenizer.text_stream(stops, frozenset(silent)) for _ in range(request.n)]
    return Transcript(
        streams,
        prompt_tokens=len(request.prompt_ids),
        request_id=request.request_id,
        calls_tools=wanted.tools.usable,
    )
