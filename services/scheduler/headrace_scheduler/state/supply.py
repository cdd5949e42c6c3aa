"""When slots become free: how many requests will have ended by when.

On average over a long time, slots become free at an even rate. But requests that began together
end together: after an idle mesh has filled at once, no slot becomes free for a whole answer.
So the ends to come are reckoned from those that run: each ends when its answer does, and its slot
is taken by another like it. That is a renewal process for each slot (Cox, Renewal Theory, 1962);
where the slots began at random times, all of them together give the even rate again.
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
"""That the bins reach over; after that, slots are taken to become free at an even rate."""
LOOKED_AT = 24
"""Running requests, evenly picked, that stand for all."""


class Run(NamedTuple):
    """A running request, in output tokens of each of its choices."""

    made: float
    """Less than 0 while it has not come to its first token."""
    most: float
    slots: float


def sample_runs(runs: Sequence[Run]) -> list[Run]:
    """At most `LOOKED_AT` of them, evenly, with the slots of all."""
    if len(runs) <= LOOKED_AT:
        return list(runs)
    chosen = [runs[i * len(runs) // LOOKED_AT] for i in range(LOOKED_AT)]
    more = sum(r.slots for r in runs) / sum(r.slots for r in chosen)
    return [run._replace(slots=run.slots * more) for run in chosen]


@dataclass(frozen=True)
class Supply:
    """Ends of those that run and of those that follow them, over time in steps of a token."""

    runs: Sequence[Run]
    lengths: Survival
    before: float = 0.0
    """Tokens that could be made in the time from the end of one request to the first token of the
    next in its slot."""

    @cached_property
    def slots(self) -> float:
        return sum(run.slots for run in self.runs)

    @cached_property
    def turn(self) -> float:
        """Tokens from the start of a request to its end, on average over the slots."""
        return sum(run.slots * self._mean(run.most) for run in self.runs) / self.slots

    def tokens_until(self, slots: float) -> float:
        """How many tokens each running request makes until so many slots have become free."""
        ends, width = self._ends, self._width
        for k in range(1, BINS + 1):
            if ends[k] >= slots:
                part = (slots - ends[k - 1]) / (ends[k] - ends[k - 1])
                return width * (k - 1 + part)
        return width * BINS + (slots - ends[BINS]) * self.turn / self.slots

    @cached_property
    def _width(self) -> float:
        """Of a bin, in tokens."""
        return max(TURNS * self.turn / BINS, 1e-9)

    @cached_property
    def _ends(self) -> list[float]:
        """How many slots have become free at the end of each bin; at 0, none."""
        ending: dict[float, list[float]] = {}
        for run in self.runs:
            # Those whose bound is beyond all lengths are alike.
            alike = ending.setdefault(min(run.most, self.lengths.tail), [0.0] * (BINS + 1))
            for k, share in enumerate(self._spread(run)):
                alike[k] += run.slots * share
        total = [0.0] * (BINS + 1)
        for most, first in ending.items():
            again = self._renewals(most)
            for k in range(1, BINS + 1):
                total[k] += sum(first[j] * (1.0 + again[k - j]) for j in range(1, k + 1))
        return total

    def _renewals(self, most: float) -> list[float]:
        """Ends in a slot by each bin, after a request has just begun in it."""
        ending = self._spread(Run(-self.before, most, 1))
        again = [0.0] * (BINS + 1)
        for k in range(1, BINS + 1):
            again[k] = sum(ending[j] * (1.0 + again[k - j]) for j in range(1, k + 1))
        return again

    def _spread(self, run: Run) -> list[float]:
        """The chance that a request ends within each bin; of the rest, it ends later."""
        width, made = self._width, run.made
        left = [1.0, *(self._left(run, made + width * k) for k in range(1, BINS + 1))]
        return [0.0, *(before - after for before, after in pairwise(left))]

    def _left(self, run: Run, tokens: float) -> float:
        """The chance that one that has made what it has comes to make so many."""
        if tokens >= run.most:
            return 0.0
        now = self.lengths.beyond(run.made)
        if now > 0.0:
            return self.lengths.beyond(tokens) / now
        return float(tokens < LONGER * run.made)

    def _mean(self, most: float) -> float:
        """Of a request whose answer may have so many, in tokens."""
        tail = min(most, self.lengths.tail)
        parts = 64
        longer = (self.lengths.beyond(tail * (i + 0.5) / parts) for i in range(parts))
        return self.before + sum(longer) * tail / parts
