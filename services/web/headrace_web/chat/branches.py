"""The tree of a conversation's turns. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headrace.errors import ResourceNotFound
from headrace_web.base.records import Turn


def by_id(turns: Iterable[Turn]) -> dict[str, Turn]:
    return {turn.turn_id: turn for turn in turns}


def path_to(turns: Mapping[str, Turn], turn_id: str) -> Sequence[Turn]:
    """Return the turns from a first one to this one; none for the empty id.

    Raises:
        ResourceNotFound: there is no such turn.
    """
    path: list[Turn] = []
    while turn_id:
        if (turn := turns.get(turn_id)) is None or len(path) > len(turns):
            raise ResourceNotFound(f"turn {turn_id[:64]} not found")
        path.append(turn)
        turn_id = turn.parent
    return path[::-1]
