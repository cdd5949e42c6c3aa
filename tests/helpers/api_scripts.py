"""Scripts of a scripted mesh for the tests of the API."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from headrace.errors import AttemptsExhausted, PatienceExhausted
from headrace.logprobs import Logprobs
from headrace_gateway.request.generation import Event, Failed, Tokens, ValidRequest
from helpers.scripted_admission import Script, ScriptedGeneration, one_by_one
from helpers.tiny_tokenizers import byte_level

SAYING = "the mill 水 🌊!"
FAILURE = AttemptsExhausted("it failed on 3 attempts")


def ids_of(text: str) -> list[int]:
    return list(byte_level().encode(text).ids)


def says(request: ValidRequest) -> Script:
    """Every choice says the same, a token at a time; token 1 ends it. Logprobs as requested."""
    scripts = [
        [_told(events, request) for events in one_by_one(choice, [*ids_of(SAYING), 1])]
        for choice in range(request.n)
    ]
    return [[event for part in step for event in part] for step in zip(*scripts, strict=True)]


def _told(events: list[Event], request: ValidRequest) -> list[Event]:
    sampling, told = request.sampling, []
    for event in events:
        if isinstance(event, Tokens) and sampling.HasField("logprobs"):
            event = replace(event, logprobs=likely(event.token_ids, sampling.logprobs))
        if isinstance(event, Tokens) and sampling.HasField("prompt_logprobs"):
            of_prompt = likely(list(request.prompt_ids[1:]), sampling.prompt_logprobs)
            event = replace(event, prompt_logprobs=None if event.first_index else of_prompt)
        told.append(event)
    return told


def likely(token_ids: list[int], width: int) -> Logprobs:
    """Token id / -100 for each, and those behind it are half as likely each."""
    run = Logprobs()
    for token_id in token_ids:
        top = [token_id / -100 - rank / 2 for rank in range(width)]
        run.extend(Logprobs.of([token_id / -100], range(token_id, token_id + width), top))
    return run


def fails_midway(request: ValidRequest) -> Script:
    return [[Tokens(0, 0, ids_of("the mill"))], [Failed(FAILURE)]]


def fails_at_once(request: ValidRequest) -> Script:
    return [[Failed(PatienceExhausted("it waited 5 s", retry_after_s=2.5))]]


def hangs_after_a_word(request: ValidRequest) -> Script:
    return [[Tokens(0, 0, ids_of("the mill"))]]


def hangs(request: ValidRequest) -> Script:
    return []


async def ended(generation: ScriptedGeneration) -> None:
    """Wait for a settle or abandon, and that there is but one."""
    async with asyncio.timeout(5):
        while not generation.ends:
            await asyncio.sleep(0.01)
    assert generation.ends == 1
