"""The requests of a chaos run: a seeded set, no two alike. Pure.

Together they use what a resumed request could get wrong: greedy and sampled decoding, several
choices, stop strings, penalties, log probabilities, ends by the model and by `max_tokens`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_WORDS = (
    "cat violin river mill teacher apple winter letter bridge garden clock boat sister market "
    "lantern fox music window bread mountain story small red old quiet happy seven first"
)
_STOPS = (" the end", ". ", " wheel", " and", " stone", "er ", "!", " she")
"""Every model's text has some of these, and so has the scripted engine's."""


class Api(StrEnum):
    CHAT = "chat"
    COMPLETIONS = "completions"
    NATIVE = "native"
    BACKGROUND = "background"
    """Of the native API: nothing reads its stream, and its result is fetched."""
    BATCH = "batch"
    """A row of a batch; its endpoint is that of completions."""


READ_AT_THE_END = (Api.BACKGROUND, Api.BATCH)
"""What comes of these is fetched in one piece."""


@dataclass(frozen=True, slots=True)
class ChaosRequest:
    number: int
    api: Api
    prompt: str
    seed: int
    n: int
    sampling: dict[str, Any]
    """By the names that the APIs share; `logprobs` is chat's `top_logprobs`."""


def openai_body(request: ChaosRequest, model: str) -> dict[str, Any]:
    """Return the body by which OpenAI's API generates what a request asks for."""
    body: dict[str, Any] = {
        "model": model,
        "seed": request.seed,
        "n": request.n,
        **request.sampling,
    }
    if request.api is not Api.CHAT:
        return body | {"prompt": request.prompt}
    if "logprobs" in request.sampling:
        body |= {"logprobs": True, "top_logprobs": request.sampling["logprobs"]}
    return body | {"messages": [{"role": "user", "content": request.prompt}]}


def make_requests(
    count: int, *, seed: int, apis: Sequence[Api], max_choices: int, max_tokens: int
) -> list[ChaosRequest]:
    """Return `count` requests, the same for the same arguments."""
    rng = random.Random(f"asks {seed}")
    return [_request(number, rng, apis, max_choices, max_tokens) for number in range(count)]


def _request(
    number: int, rng: random.Random, apis: Sequence[Api], max_choices: int, max_tokens: int
) -> ChaosRequest:
    words = rng.choices(_WORDS.split(), k=rng.choice((4, 12, 60)))
    bound = rng.choice((rng.randint(1, 8), rng.randint(20, 80), rng.randint(150, 300)))
    sampling: dict[str, Any] = {"max_tokens": min(bound, max_tokens)}
    # Why most: a long stream is more often open when a fault comes.
    if rng.random() < 0.7:
        sampling["ignore_eos"] = True
    sampling["temperature"] = rng.choice((0.0, 0.7, 1.0))
    if sampling["temperature"] and rng.random() < 0.5:
        sampling["top_p"] = 0.9
    if rng.random() < 0.3:
        sampling["stop"] = rng.sample(_STOPS, 2)
    if rng.random() < 0.3:
        sampling |= {"presence_penalty": 0.5, "frequency_penalty": 0.25}
    if rng.random() < 0.3:
        sampling["repetition_penalty"] = 1.1
    if rng.random() < 0.2:
        sampling["logprobs"] = rng.randint(0, 5)
    return ChaosRequest(
        number,
        apis[number % len(apis)],
        f"Number {number}: tell me of a {' '.join(words)}.",
        seed=rng.getrandbits(32),
        n=min(rng.choice((1, 1, 2)), max_choices),
        sampling=sampling,
    )
