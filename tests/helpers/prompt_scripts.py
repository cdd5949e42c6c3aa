"""A script whose answers tell of which prompt each choice is."""

from __future__ import annotations

from headrace_gateway.request.generation import ChoiceEnded, Event, Tokens, ValidRequest
from helpers.api_scripts import ids_of, likely
from helpers.scripted_admission import STOP, Script
from helpers.tiny_tokenizers import byte_level

PROMPTS = ["the mill", "river", "the wheel turns", "stone", "水", "a", "bridge", "the lock"]


def turned(request: ValidRequest) -> Script:
    """Each choice says its prompt backwards and its own number, a token at a time."""
    steps: list[list[Event]] = []
    for choice in range(request.n):
        ids = [*reversed(request.prompt_ids), *ids_of(str(choice))]
        steps += [[_token(request, choice, at, token_id)] for at, token_id in enumerate(ids)]
        steps.append([ChoiceEnded(choice, STOP)])
    return steps


def _token(request: ValidRequest, choice: int, at: int, token_id: int) -> Tokens:
    sampling = request.sampling
    run = likely([token_id], sampling.logprobs) if sampling.HasField("logprobs") else None
    of_prompt = None
    if at == 0 and sampling.HasField("prompt_logprobs"):
        of_prompt = likely(list(request.prompt_ids[1:]), sampling.prompt_logprobs)
    return Tokens(choice, at, [token_id], run, of_prompt)


def expected(prompt: str, choice: int = 0) -> str:
    return byte_level().decode([*reversed(ids_of(prompt)), *ids_of(str(choice))])
