"""Histories as a chaos run would write them: a good one, and ways to spoil it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headrace.chaos.history import (
    ChoiceFinished,
    DeltaReceived,
    Event,
    RequestSent,
    RunEnded,
    RunStarted,
    StreamFinished,
    StreamStarted,
    UsageReceived,
)

UNDISTURBED, DISTURBED = 1, 2
"""Streams of the good history: the same request, before the faults and under them."""

Spoil = Callable[[Event], Iterable[Event]]


def stream(number: int, *, request: int = 0, disturbed: bool, at_s: float) -> list[Event]:
    """Return a stream of two choices of four tokens, in two deltas each."""
    return [
        RequestSent(at_s, number, request, "native", 2, 5, disturbed=disturbed),
        StreamStarted(at_s + 0.01, number, f"r{number}"),
        DeltaReceived(at_s + 0.1, number, 0, "one two ", [11, 12], 0),
        DeltaReceived(at_s + 0.1, number, 1, "uno dos ", [21, 22], 0),
        DeltaReceived(at_s + 0.2, number, 0, "three ", [13, 14], 2),
        ChoiceFinished(at_s + 0.2, number, 0, "length"),
        DeltaReceived(at_s + 0.2, number, 1, "tres ", [23, 24], 2),
        ChoiceFinished(at_s + 0.2, number, 1, "stop"),
        UsageReceived(at_s + 0.3, number, 5, 8),
        StreamFinished(at_s + 0.3, number),
    ]


def good(*, exact: bool = True) -> list[Event]:
    return [
        RunStarted(0.0, "toy", "scripted", exact, 1),
        *stream(UNDISTURBED, disturbed=False, at_s=1.0),
        *stream(DISTURBED, disturbed=True, at_s=10.0),
        RunEnded(20.0, 0),
    ]


def spoiled(spoil: Spoil, *, exact: bool = True) -> list[Event]:
    """The good history, with `spoil` applied to every event of the disturbed stream."""
    return [
        other
        for event in good(exact=exact)
        for other in (spoil(event) if getattr(event, "stream", 0) == DISTURBED else [event])
    ]
