"""How long answers are: what recent ends, and those that still run, say of it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

KEPT = 64
"""Ends that are looked at, the last ones."""
FIRST_EXPECTED = 256.0
"""Output tokens that a request is expected to make, at most, where nothing longer was seen."""

LONGER = 1.25
"""How much longer an answer is taken to become that is longer than all that were seen to end."""


class ObservedLength(NamedTuple):
    """What was seen of one answer, in output tokens."""

    tokens: float
    whole: bool
    """It came to its own end there, rather than to a bound, a cancellation or this moment."""
    since: float = 0.0
    """What it had when looking began: had it ended before, it would not have been seen."""


@dataclass(frozen=True, slots=True)
class Survival:
    """Which share of answers is longer than so many tokens, if nothing cuts them off.

    The product-limit estimator of Kaplan and Meier (1958), with late entries: an answer that came
    to its `max_tokens`, was cancelled or still runs says only that answers may be longer than that,
    and one that had 50 tokens when looking began says nothing of how many are shorter than 50. For
    example, of answers of 10, 20 and "20, cut off" tokens, a third ends at 10, and half of the rest
    at 20; the others, a third of all, are longer than was seen:

        >>> seen = Survival.of([Seen(10, True), Seen(20, True), Seen(20, False)])
        >>> [round(seen.beyond(tokens), 2) for tokens in (0, 10, 19.5, 20)]
        [1.0, 0.67, 0.67, 0.33]
    """

    steps: tuple[float, ...]
    shares: tuple[float, ...]
    """Up to each step, and after the last."""
    tail: float
    """Where answers are taken to end that are longer than all that were seen to end."""

    @classmethod
    def of(cls, answers: Iterable[ObservedLength]) -> Survival:
        seen = sorted(answers, key=lambda each: (each.tokens, not each.whole))
        entries = sorted(each.since for each in seen)
        steps, shares = list[float](), [1.0]
        for place, each in enumerate(seen):
            if each.whole:
                late = len(entries) - bisect_left(entries, each.tokens)
                at_risk = max(1, len(seen) - place - late)
                steps.append(each.tokens)
                shares.append(shares[-1] * (1.0 - 1.0 / at_risk))
        longest = seen[-1].tokens if seen else 0.0
        tail = longest if shares[-1] <= 0.0 else LONGER * longest
        if not steps:
            tail = max(tail, FIRST_EXPECTED)
        return cls(tuple(steps), tuple(shares), tail)

    def beyond(self, tokens: float) -> float:
        """In [0, 1]; 0 from `tail` on."""
        return 0.0 if tokens >= self.tail else self.shares[bisect_right(self.steps, tokens)]


class EndedChoice(NamedTuple):
    """A choice that has ended."""

    tokens: float
    whole: bool
    """It came to its own end, rather than to a bound or a cancellation."""
    ran_s: float
    """In its slot, since it was last given to a worker."""
    ran_tokens: float
    """Of `tokens`, those made in that time."""
    at_s: float


class Lengths:
    """What the last `KEPT` requests made until they ended, and how long that took."""

    def __init__(self) -> None:
        self._ends: deque[EndedChoice] = deque(maxlen=KEPT)

    def __len__(self) -> int:
        return len(self._ends)

    def ended(self, end: EndedChoice) -> None:
        self._ends.append(end)

    def seconds(self, token_s: float) -> tuple[float, float]:
        """Seconds a token, and seconds before the first: prefill, and the ways there and back.

        `token_s` is what workers say of the first; where they do not, 0, all of the time is the
        tokens'.
        """
        ran_s = sum(end.ran_s for end in self._ends)
        ran_tokens = sum(end.ran_tokens for end in self._ends)
        if not ran_tokens:
            return token_s, 0.0
        token_s = token_s or ran_s / ran_tokens
        return token_s, max(0.0, ran_s - ran_tokens * token_s) / len(self._ends)

    def survival(self, made: Iterable[float], *, token_s: float, now_s: float) -> Survival:
        """`made` is what those that still run have. Why these: of requests that began together the
        short ones end first, and alone they would say that all are short."""
        since_s = self._ends[0].at_s if len(self._ends) == KEPT else float("-inf")

        def seen(tokens: float, whole: bool, at_s: float) -> ObservedLength:
            return ObservedLength(tokens, whole, max(0.0, tokens - (at_s - since_s) / token_s))

        ended = (seen(end.tokens, end.whole, end.at_s) for end in self._ends)
        running = (seen(tokens, False, now_s) for tokens in made if tokens > 0.0)
        return Survival.of([*ended, *running])
