"""Log probabilities of a run of tokens, in columns, as messages have them. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

LEAST = -9999.0
"""Stands for all lower values, minus infinity included: JSON has no infinities."""

Row = tuple[float, list[int], list[float]]
"""Of one token: its log probability, the ids of the top tokens in its place, and theirs."""


def _floats(values: Iterable[float] = ()) -> array[float]:
    return array("f", values)


def _ids(values: Iterable[int] = ()) -> array[int]:
    return array("I", values)


@dataclass(slots=True)
class Logprobs:
    """Log probabilities of tokens, and of equally many top tokens in the place of each.

    Why arrays: lists of numbers take five times the memory, for every token of an open request.
    """

    own: array[float] = field(default_factory=_floats)
    """float32, `(tokens,)`."""
    top_ids: array[int] = field(default_factory=_ids)
    """uint32, `(tokens * width,)`."""
    top: array[float] = field(default_factory=_floats)
    """float32, `(tokens * width,)`."""

    @classmethod
    def of(
        cls, own: Iterable[float], top_ids: Iterable[int] = (), top: Iterable[float] = ()
    ) -> Logprobs:
        """Build them from the columns of a message."""
        return cls(_floats(own), _ids(top_ids), _floats(top))

    def __len__(self) -> int:
        return len(self.own)

    @property
    def width(self) -> int:
        """How many top tokens each token has; 0 without tokens."""
        return len(self.top) // len(self.own) if self.own else 0

    def extend(self, run: Logprobs) -> None:
        """Append the following tokens, of the same width."""
        self.own.extend(run.own)
        self.top_ids.extend(run.top_ids)
        self.top.extend(run.top)

    def cut(self, start: int, stop: int | None = None) -> Logprobs:
        """Return those of tokens `start` to before `stop`, or to the end."""
        width, stop = self.width, len(self) if stop is None else stop
        wide = slice(start * width, stop * width)
        return Logprobs(self.own[start:stop], self.top_ids[wide], self.top[wide])

    def rows(self) -> Iterator[Row]:
        width = self.width
        for at, own in enumerate(self.own):
            wide = slice(at * width, (at + 1) * width)
            yield own, self.top_ids[wide].tolist(), self.top[wide].tolist()
