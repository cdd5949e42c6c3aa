"""A conversation is a tree of turns."""

from __future__ import annotations

import pytest

from headrace.errors import ResourceNotFound
from headrace_web.base.records import Turn
from headrace_web.chat.branches import by_id, path_to


def turn(turn_id: str, parent: str = "") -> Turn:
    return Turn(turn_id, "c", parent, "user")


TURNS = by_id([turn("a"), turn("b", "a"), turn("c", "b"), turn("b2", "a")])


def test_a_path_goes_from_a_first_turn_to_its_end() -> None:
    assert [each.turn_id for each in path_to(TURNS, "c")] == ["a", "b", "c"]
    assert [each.turn_id for each in path_to(TURNS, "b2")] == ["a", "b2"]
    assert path_to(TURNS, "") == []


@pytest.mark.parametrize("parent", ["nowhere", "x"])
def test_a_broken_path_is_refused(parent: str) -> None:
    with pytest.raises(ResourceNotFound):
        path_to({"x": turn("x", parent)}, "x")
