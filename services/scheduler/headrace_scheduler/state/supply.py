"""When slots become free: how many requests will have ended by when.

On average over a long time, slots become free at an even rate. But requests that began together
end together: after an idle mesh has filled at once, no slot becomes free for a whole answer. So
the coming ends are computed from the running requests: each ends when its answer does, and its
slot is taken by another like it. That is a renewal process for each slot (Cox, Renewal Theory,
1962); where the slots began at random times, together they give the even rate again.

For example, 4 slots whose requests began together and have made 10 tokens each, where half of
the answers seen were 20 tokens long and half 40:

    an answer has 30 tokens on average     so at an even rate 4/30 slots become free per token:
                                           the first after 7.5 tokens, the fourth after 30
    chance that a running one ends at 20   1/2 each: two slots are free after 11 tokens
    chance that it ends at 40              the rest: two more after 30 and 31 tokens
    the two slots that were taken again    half of their requests end 20 tokens after the start
                                           of the second answer: the fifth after 32 tokens

Times come in bins of 1.5 * 30 / 32 tokens, hence 11 and not 10. With 50 ms per token the third
newcomer waits 30 * 0.05 = 1.5 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from headrace_scheduler.state.lengths import LONGER, Survival

BINS = 32
TURNS = 1.5
"""Turns that the bins cover; after that, slots are taken to become free at an even rate."""
MAX_SAMPLED = 24
"""Running requests, evenly picked, that stand for all."""


class RunningRequest(NamedTuple):
    """A running request, in output tokens of each of its choices."""

    made: float
    """Less than 0 before its first token."""
    most: float
    """Its `max_tokens`."""
    slots: float


def sample_runs(runs: Sequence[RunningRequest]) -> list[RunningRequest]:
    """Return at most `MAX_SAMPLED` of them, evenly picked, with the slots of all."""
    if len(runs) <= MAX_SAMPLED:
        return list(runs)
    chosen = [runs[i * len(runs) // MAX_SAMPLED] for i in range(MAX_SAMPLED)]
    more = sum(r.slots for r in runs) / sum(r.slots for r in chosen)
    return [run._replace(slots=run.slots * more) for run in chosen]


@dataclass(frozen=True)
class SlotSupply:
    """Ends of the running requests and of those that follow them; time is counted in tokens."""

    runs: Sequence[RunningRequest]
    lengths: Survival
    before: float = 0.0
    """Tokens that could be made between the end of one request and the first token of the next."""

    @cached_property
    def slots(self) -> float:
        return sum(run.slots for run in self.runs)

    @cached_property
    def turn(self) -> float:
        """Tokens from the start of a request to its end, averaged over the slots."""
        return sum(run.slots * self._mean_turn(run.most) for run in self.runs) / self.slots

    def tokens_until_free(self, slots: float) -> float:
        """Return how many tokens each running request makes until so many slots are free."""
        ends, width = self._ends, self._bin_tokens
        for k in range(1, BINS + 1):
            if ends[k] >= slots:
                part = (slots - ends[k - 1]) / (ends[k] - ends[k - 1])
                return width * (k - 1 + part)
        return width * BINS + (slots - ends[BINS]) * self.turn / self.slots

    @cached_property
    def _bin_tokens(self) -> float:
        return max(TURNS * self.turn / BINS, 1e-9)

    @cached_property
    def _ends(self) -> list[float]:
        """Slots that have become free at the end of each bin; `_ends[0]` is 0."""
        ending: dict[float, list[float]] = {}
        for run in self.runs:
            # Why together: requests whose bound is beyond all lengths are alike.
            alike = ending.setdefault(min(run.most, self.lengths.tail), [0.0] * (BINS + 1))
            for k, share in enumerate(self._end_chances(run)):
                alike[k] += run.slots * share
        total = [0.0] * (BINS + 1)
        for most, first in ending.items():
            again = self._renewals(most)
            for k in range(1, BINS + 1):
                total[k] += sum(first[j] * (1.0 + again[k - j]) for j in range(1, k + 1))
        return total

    def _renewals(self, most: float) -> list[float]:
        """Return the ends in a slot by each bin, after a request has just begun in it."""
        ending = self._end_chances(RunningRequest(-self.before, most, 1))
        again = [0.0] * (BINS + 1)
        for k in range(1, BINS + 1):
            again[k] = sum(ending[j] * (1.0 + again[k - j]) for j in range(1, k + 1))
        return again

    def _end_chances(self, run: RunningRequest) -> list[float]:
        """Return the chance that a request ends within each bin; the rest is that it ends later."""
        width, made = self._bin_tokens, run.made
        left = [1.0, *(self._still_runs(run, made + width * k) for k in range(1, BINS + 1))]
        return [0.0, *(before - after for before, after in pairwise(left))]

    def _still_runs(self, run: RunningRequest, tokens: float) -> float:
        """Return the chance that a request which has made `run.made` tokens makes `tokens`."""
        if tokens >= run.most:
            return 0.0
        now = self.lengths.share_longer_than(run.made)
        if now > 0.0:
            return self.lengths.share_longer_than(tokens) / now
        return float(tokens < LONGER * run.made)

    def _mean_turn(self, most: float) -> float:
        """Return the mean turn of a request whose answer may have `most` tokens."""
        tail = min(most, self.lengths.tail)
        parts = 64
        longer = (self.lengths.share_longer_than(tail * (i + 0.5) / parts) for i in range(parts))
        return self.before + sum(longer) * tail / parts
