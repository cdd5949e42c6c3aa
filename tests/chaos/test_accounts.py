"""The judge of accounts is fed with rows that are wrong, and catches each."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from headrace.chaos.history import (
    AccountsRead,
    ClientClosed,
    DeltaReceived,
    Event,
    StreamFinished,
    UsageRowRead,
)
from headrace.chaos.judge import judge
from headrace.chaos.scorecard import scorecard
from helpers.histories import DISTURBED, UNDISTURBED, good, spoiled

TOLD = (5, 8)
"""Prompt and output tokens of both streams of the good history."""


def row(
    number: int, figures: tuple[int, int] = TOLD, *, code: int = 0, billed: bool = True
) -> UsageRowRead:
    return UsageRowRead(21.0, "tenant", f"r{number}", billed, code, *figures)


def misbilled(history: list[Event], rows: Iterable[Event]) -> list[str]:
    """What is wrong with the accounts, if the undisturbed stream has its row."""
    events = [*history, row(UNDISTURBED), *rows, AccountsRead(21.0, [])]
    return [f"{each.violation}: {each.fact}" for each in judge(events).findings]


def closed() -> list[Event]:
    """The client of the disturbed stream leaves with four tokens, two of each choice."""

    def spoil(event: Event) -> list[Event]:
        if isinstance(event, StreamFinished):
            return [ClientClosed(event.at_s, DISTURBED)]
        is_first = isinstance(event, DeltaReceived) and event.first_index == 0
        return [event] if is_first or event.at_s < 10.1 else []

    return spoiled(spoil)


def test_a_row_with_what_the_client_was_told_is_right() -> None:
    assert misbilled(good(), [row(DISTURBED)]) == []
    assert misbilled(good(), [row(DISTURBED), row(DISTURBED, (0, 0), code=6)]) == []
    # The row of a batch was computed twice.
    assert misbilled(good(), [row(DISTURBED), row(DISTURBED, billed=False)]) == []


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(DISTURBED), row(DISTURBED)],
        [row(DISTURBED, (5, 7))],
        [row(DISTURBED, (4, 8))],
        [row(DISTURBED, code=1)],
        [row(DISTURBED, (0, 0), code=6)],
        [row(DISTURBED, billed=False)],
    ],
)
def test_whoever_saw_the_end_has_one_row_with_what_it_was_told(rows: list[Event]) -> None:
    (fact,) = misbilled(good(), rows)
    assert fact.startswith("misbilled")


def test_whoever_left_pays_for_what_it_received_at_least() -> None:
    assert misbilled(closed(), [row(DISTURBED, (5, 4), code=1)]) == []
    assert misbilled(closed(), [row(DISTURBED, (5, 7), code=1)]) == []
    (fact,) = misbilled(closed(), [row(DISTURBED, (5, 3), code=1)])
    assert "3 output tokens billed of 4 that were received" in fact


@pytest.mark.parametrize("code", [0, 1])
def test_whoever_left_pays_for_nothing_that_was_made_behind_a_stop_string(code: int) -> None:
    assert misbilled(closed(), [row(DISTURBED, code=code)]) == []
    (fact,) = misbilled(closed(), [row(DISTURBED, (5, 9), code=code)])
    assert "9 output tokens billed, and 8 can be made" in fact


def test_a_leader_that_gives_a_request_up_knows_no_stop_strings() -> None:
    # Each of two choices may have made more before its worker was stopped; one ended by a stop.
    assert misbilled(closed(), [row(DISTURBED, (5, 10), code=14)]) == []
    (fact,) = misbilled(closed(), [row(DISTURBED, (5, 11), code=14)])
    assert "11 output tokens billed, and 10 can be made" in fact


def test_accounts_that_were_not_read_are_not_judged() -> None:
    assert judge(good()).findings == []
    assert scorecard(judge(good())).rows is None


def test_what_the_mesh_itself_finds_counts() -> None:
    events = [*good(), row(UNDISTURBED), row(DISTURBED), AccountsRead(21.0, ["sums a: 1 of 2"])]
    card = scorecard(judge(events))
    assert (card.rows, card.misbilled, card.passed) == (2, 1, False)
    assert card.findings == ["accounts: sums a: 1 of 2"]
