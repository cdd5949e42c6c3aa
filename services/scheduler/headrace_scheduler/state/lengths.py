"""How long answers are, by recent ends and by the requests that still run."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

MAX_KEPT = 64
"""Ends that are kept, the last ones."""
FIRST_EXPECTED = 256.0
"""Output tokens that a request is expected to make, at most, where nothing longer was seen."""
LONGER = 1.25
"""How much longer an answer is expected to become that exceeds all that were seen to end."""


class ObservedLength(NamedTuple):
    """The length of one answer, in output tokens, as far as it was observed."""

    tokens: float
    is_whole: bool
    """Whether it came to its own end there, not to a bound, a cancellation or this moment."""
    entered_at: float = 0.0
    """Its length when observation began: had it ended before, it would not have been observed."""


@dataclass(frozen=True, slots=True)
class Survival:
    """The share of answers that are longer than a number of tokens, if nothing cuts them off.

    The product-limit estimator of Kaplan and Meier (1958), with late entries: an answer that came
    to its `max_tokens`, was cancelled or still runs says only that answers may be longer than that,
    and one that had 50 tokens when observation began says nothing of how many are shorter than 50.
    For example, of answers of 10, 20 and "20, cut off" tokens, a third ends at 10, and half of the
    rest at 20; the others, a third of all, are longer than was seen:

        >>> seen = [ObservedLength(10, True), ObservedLength(20, True), ObservedLength(20, False)]
        >>> survival = Survival.of(seen)
        >>> [round(survival.share_longer_than(tokens), 2) for tokens in (0, 10, 19.5, 20)]
        [1.0, 0.67, 0.67, 0.33]
    """

    steps: tuple[float, ...]
    shares: tuple[float, ...]
    """Up to each step, and after the last."""
    tail: float
    """Length at which answers are expected to end that exceed all that were seen to end."""

    @classmethod
    def of(cls, answers: Iterable[ObservedLength]) -> Survival:
        seen = sorted(answers, key=lambda each: (each.tokens, not each.is_whole))
        entries = sorted(each.entered_at for each in seen)
        steps, shares = list[float](), [1.0]
        for place, each in enumerate(seen):
            if each.is_whole:
                late = len(entries) - bisect_left(entries, each.tokens)
                at_risk = max(1, len(seen) - place - late)
                steps.append(each.tokens)
                shares.append(shares[-1] * (1.0 - 1.0 / at_risk))
        longest = seen[-1].tokens if seen else 0.0
        tail = longest if shares[-1] <= 0.0 else LONGER * longest
        if not steps:
            tail = max(tail, FIRST_EXPECTED)
        return cls(tuple(steps), tuple(shares), tail)

    def share_longer_than(self, tokens: float) -> float:
        """Return the share, in [0, 1]; 0 from `tail` on."""
        return 0.0 if tokens >= self.tail else self.shares[bisect_right(self.steps, tokens)]


class EndedChoice(NamedTuple):
    """A choice that has ended."""

    tokens: float
    is_whole: bool
    """Whether it came to its own end, not to a bound or a cancellation."""
    ran_s: float
    """Time in its slot, since it was last dispatched."""
    ran_tokens: float
    """Tokens made in that time."""
    at_s: float


class Lengths:
    """The last `MAX_KEPT` ends: how many tokens were made, and how long that took."""

    def __init__(self) -> None:
        self._ends: deque[EndedChoice] = deque(maxlen=MAX_KEPT)

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, end: EndedChoice) -> None:
        self._ends.append(end)

    def token_times_s(self, token_s: float) -> tuple[float, float]:
        """Return the seconds per token, and those before the first: prefill and transport.

        Args:
            token_s: what workers report of the first; if 0, all of the time counts as the tokens'.
        """
        ran_s = sum(end.ran_s for end in self._ends)
        ran_tokens = sum(end.ran_tokens for end in self._ends)
        if not ran_tokens:
            return token_s, 0.0
        token_s = token_s or ran_s / ran_tokens
        return token_s, max(0.0, ran_s - ran_tokens * token_s) / len(self._ends)

    def survival(self, made: Iterable[float], *, token_s: float, now_s: float) -> Survival:
        """Return the distribution of lengths.

        Args:
            made: tokens of the running requests. Why these count: of requests that began
                together the short ones end first, and alone would make all seem short.
        """
        since_s = self._ends[0].at_s if len(self._ends) == MAX_KEPT else float("-inf")

        def observed(tokens: float, is_whole: bool, at_s: float) -> ObservedLength:
            entered_at = max(0.0, tokens - (at_s - since_s) / token_s)
            return ObservedLength(tokens, is_whole, entered_at)

        ended = (observed(end.tokens, end.is_whole, end.at_s) for end in self._ends)
        running = (observed(tokens, False, now_s) for tokens in made if tokens > 0.0)
        return Survival.of([*ended, *running])
