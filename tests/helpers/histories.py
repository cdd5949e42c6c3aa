"""Histories as a torture would write them: one good one, and ways to spoil it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headrace.chaos.history import (
    Accepted,
    Began,
    ChoiceEnded,
    Counted,
    Ended,
    Event,
    Offered,
    Rested,
    Said,
)

UNDISTURBED, DISTURBED = 1, 2
"""Streams of the good history: the same request, before the faults and under them."""

Spoil = Callable[[Event], Iterable[Event]]


def stream(number: int, *, ask: int = 0, disturbed: bool, at_s: float) -> list[Event]:
    """Two choices of four tokens, told in two pieces each."""
    return [
        Offered(at_s, number, ask, "native", 2, disturbed=disturbed),
        Accepted(at_s + 0.01, number, f"r{number}"),
        Said(at_s + 0.1, number, 0, "one two ", [11, 12], 0),
        Said(at_s + 0.1, number, 1, "uno dos ", [21, 22], 0),
        Said(at_s + 0.2, number, 0, "three ", [13, 14], 2),
        ChoiceEnded(at_s + 0.2, number, 0, "length"),
        Said(at_s + 0.2, number, 1, "tres ", [23, 24], 2),
        ChoiceEnded(at_s + 0.2, number, 1, "stop"),
        Counted(at_s + 0.3, number, 5, 8),
        Ended(at_s + 0.3, number),
    ]


def good(*, exact: bool = True) -> list[Event]:
    return [
        Began(0.0, "toy", "scripted", exact, 1),
        *stream(UNDISTURBED, disturbed=False, at_s=1.0),
        *stream(DISTURBED, disturbed=True, at_s=10.0),
        Rested(20.0, 0),
    ]


def spoiled(spoil: Spoil, *, exact: bool = True) -> list[Event]:
    """The good history with every event of the disturbed stream replaced by what `spoil` says."""
    return [
        other
        for event in good(exact=exact)
        for other in (spoil(event) if getattr(event, "stream", 0) == DISTURBED else [event])
    ]
