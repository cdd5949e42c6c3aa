"""What a scripted mesh says in the tests of the doors."""

from __future__ import annotations

import asyncio

from headrace.errors import AttemptsExhausted, PatienceExhausted
from headrace_gateway.generation import Failed, Tokens, ValidRequest
from helpers.scripted_admission import Script, ScriptedGeneration, one_by_one
from helpers.tiny_tokenizers import byte_level

SAYING = "the mill 水 🌊!"
FAILURE = AttemptsExhausted("it failed on 3 attempts")


def ids_of(text: str) -> list[int]:
    return list(byte_level().encode(text).ids)


def says(request: ValidRequest) -> Script:
    """Every choice says the same, a token at a time; token 1 ends it."""
    scripts = [one_by_one(choice, [*ids_of(SAYING), 1]) for choice in range(request.n)]
    return [[event for part in step for event in part] for step in zip(*scripts, strict=True)]


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
