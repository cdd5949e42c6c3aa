"""Turns: questions and answers, written before they are asked and once they have ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.errors import InvalidRequest, ResourceNotFound
from headrace_web.base.records import Answer, Conversation, Owner, Turn, TurnState
from headrace_web.store.conversations import conversation_of
from headrace_web.store.database.tables import conversations, turns
from headrace_web.store.database.transactions import Database

_OPEN = [state.value for state in TurnState if state.is_open]


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """What bounds the conversations of an owner."""

    turns: int = 4_000
    """Of a conversation."""
    characters: int = 8_000_000
    """Of the turns of a conversation."""
    open_answers: int = 20
    """Of all conversations of an owner together."""


class Turns:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, owner: Owner, new: Sequence[Turn], limits: TurnLimits) -> Sequence[Turn]:
        """Add turns to one conversation, whose shown branch ends with the last one then.

        Sent again, it changes nothing. All of them are added, or none.

        Returns:
            The turns as they are stored.

        Raises:
            ResourceNotFound: the owner has no such conversation, or it has no such parent.
            InvalidRequest: it would be beyond a limit, or follows an answer that has not ended.
        """
        conversation_id, now_ms = new[0].conversation_id, self._database.now_ms()
        ids = [turn.turn_id for turn in new]
        async with self._database.writing() as connection:
            await _require(connection, owner, conversation_id)
            found = await _states(connection, conversation_id, ids)
            fresh = [turn for turn in new if turn.turn_id not in found]
            if fresh:
                await _check_limits(connection, owner, conversation_id, fresh, limits)
            for turn in fresh:
                if turn.parent and turn.parent not in found:
                    raise ResourceNotFound(f"turn {turn.parent[:64]} not found")
                if turn.parent and found[turn.parent].is_open:
                    raise InvalidRequest("the answer that it follows has not ended", field="parent")
                found[turn.turn_id] = TurnState.COMPLETE
                await connection.execute(sa.insert(turns).values(_values(turn, now_ms)))
            if fresh:
                shown = {"leaf": new[-1].turn_id, "update_ms": now_ms}
                await connection.execute(
                    sa.update(conversations)
                    .where(conversations.c.conversation_id == conversation_id)
                    .values(shown)
                )
            stored = await connection.execute(sa.select(turns).where(turns.c.turn_id.in_(ids)))
            by_id = {row.turn_id: _turn(row) for row in stored}
        return [by_id[turn_id] for turn_id in ids]

    async def of(self, owner: Owner, conversation_id: str) -> Sequence[Turn]:
        """Return all turns of a conversation, in the order in which they were added.

        Raises:
            ResourceNotFound: the owner has no such conversation.
        """
        async with self._database.reading() as connection:
            await _require(connection, owner, conversation_id)
            return await _all(connection, conversation_id)

    async def get(self, owner: Owner, turn_id: str) -> Turn:
        """Return a turn.

        Raises:
            ResourceNotFound: the owner has no such turn.
        """
        c = conversations.c
        query = (
            sa.select(turns)
            .join(conversations, c.conversation_id == turns.c.conversation_id)
            .where(
                turns.c.turn_id == turn_id,
                c.tenant == owner.tenant,
                c.owner == owner.actor,
                c.delete_ms.is_(None),
            )
        )
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise ResourceNotFound(f"turn {turn_id[:64]} not found")
        return _turn(row)

    async def open_answers(self) -> Sequence[Turn]:
        """Return the answers of all owners that have not ended."""
        query = sa.select(turns).where(turns.c.state.in_(_OPEN)).order_by(turns.c.create_ms)
        async with self._database.reading() as connection:
            return [_turn(row) for row in (await connection.execute(query)).all()]

    async def around(self, turn: Turn) -> tuple[Conversation, Sequence[Turn]]:
        """Return the conversation of a turn, and all its turns, whoever owns it.

        Raises:
            ResourceNotFound: it is gone.
        """
        is_its = conversations.c.conversation_id == turn.conversation_id
        async with self._database.reading() as connection:
            row = (await connection.execute(sa.select(conversations).where(is_its))).first()
            if row is None:
                raise ResourceNotFound(f"conversation {turn.conversation_id} is gone")
            return conversation_of(row), await _all(connection, turn.conversation_id)

    async def state(self, turn_id: str) -> TurnState | None:
        """Return the state of a turn, whoever owns it; None if it is gone."""
        query = sa.select(turns.c.state).where(turns.c.turn_id == turn_id)
        async with self._database.reading() as connection:
            found = await connection.scalar(query)
        return None if found is None else TurnState(found)

    async def started(self, turn_id: str) -> bool:
        """Mark an answer that the mesh has; return whether it is open still."""
        return await self._end_if_open(turn_id, {"state": TurnState.RUNNING.value})

    async def end(self, turn: Turn) -> bool:
        """Store how an answer has ended; return whether it was open until now.

        Several processes may do so: the first one's end stays.
        """
        assert turn.answer is not None
        values = {"state": turn.state.value, "content": turn.content, **_answer_values(turn.answer)}
        values["end_ms"] = turn.answer.end_ms or self._database.now_ms()
        return await self._end_if_open(turn.turn_id, values)

    async def _end_if_open(self, turn_id: str, values: dict[str, Any]) -> bool:
        update = sa.update(turns).where(turns.c.turn_id == turn_id, turns.c.state.in_(_OPEN))
        async with self._database.writing() as connection:
            return bool((await connection.execute(update.values(values))).rowcount)


async def _states(
    connection: AsyncConnection, conversation_id: str, ids: Sequence[str]
) -> dict[str, TurnState]:
    """Return the states of a conversation's turns by their ids.

    Raises:
        ResourceNotFound: a turn of these ids is in another conversation.
    """
    c = turns.c
    query = sa.select(c.turn_id, c.conversation_id, c.state)
    is_theirs = sa.or_(c.conversation_id == conversation_id, c.turn_id.in_(ids))
    rows = (await connection.execute(query.where(is_theirs))).all()
    if any(row.conversation_id != conversation_id for row in rows):
        raise ResourceNotFound("a turn of this id is in another conversation")
    return {row.turn_id: TurnState(row.state) for row in rows}


async def _check_limits(
    connection: AsyncConnection,
    owner: Owner,
    conversation_id: str,
    fresh: Sequence[Turn],
    limits: TurnLimits,
) -> None:
    """Raise InvalidRequest where a conversation or its owner would have too much."""
    c = turns.c
    size = sa.func.length(c.content) + sa.func.length(sa.func.coalesce(c.reasoning, ""))
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(size), 0))
    row = (await connection.execute(query.where(c.conversation_id == conversation_id))).one()
    if (count := row[0] + len(fresh)) > limits.turns:
        fact = f"the conversation would have {count} turns; {limits.turns} is the limit"
        raise InvalidRequest(f"{fact}: begin another one")
    if (length := int(row[1]) + sum(len(turn.content) for turn in fresh)) > limits.characters:
        fact = f"the conversation would have {length} characters; {limits.characters} is the limit"
        raise InvalidRequest(f"{fact}: begin another one")
    k = conversations.c
    running = (
        sa.select(sa.func.count())
        .select_from(turns)
        .join(conversations, k.conversation_id == c.conversation_id)
    )
    is_open = sa.and_(k.tenant == owner.tenant, k.owner == owner.actor, c.state.in_(_OPEN))
    if (await connection.scalar(running.where(is_open)) or 0) >= limits.open_answers:
        fact = f"{limits.open_answers} answers are under way, which is the limit"
        raise InvalidRequest(f"{fact}: wait for one, or stop one")


async def _require(connection: AsyncConnection, owner: Owner, conversation_id: str) -> None:
    c = conversations.c
    query = sa.select(c.conversation_id).where(
        c.conversation_id == conversation_id,
        c.tenant == owner.tenant,
        c.owner == owner.actor,
        c.delete_ms.is_(None),
    )
    if await connection.scalar(query) is None:
        raise ResourceNotFound(f"conversation {conversation_id[:64]} not found")


async def _all(connection: AsyncConnection, conversation_id: str) -> list[Turn]:
    query = sa.select(turns).where(turns.c.conversation_id == conversation_id)
    # Turns of one call have one time: an answer comes after its question.
    order = (turns.c.create_ms, turns.c.role.desc(), turns.c.turn_id)
    return [_turn(row) for row in (await connection.execute(query.order_by(*order))).all()]


def _values(turn: Turn, now_ms: int) -> dict[str, Any]:
    values = {
        "turn_id": turn.turn_id,
        "conversation_id": turn.conversation_id,
        "parent": turn.parent,
        "role": turn.role,
        "content": turn.content,
        "state": turn.state.value,
        "create_ms": turn.create_ms or now_ms,
    }
    if turn.answer is None:
        return values
    caller = json.dumps(turn.answer.caller)
    return values | _answer_values(turn.answer) | {"caller": caller}


def _answer_values(answer: Answer) -> dict[str, Any]:
    return {
        "request_id": answer.request_id,
        "model": answer.model,
        "parameters": json.dumps(answer.parameters, ensure_ascii=False),
        "seed": answer.seed,
        "reasoning": answer.reasoning,
        "tool_calls": json.dumps(answer.tool_calls, ensure_ascii=False),
        "finish_reason": answer.finish_reason,
        "usage": json.dumps(answer.usage),
        "error": json.dumps(answer.error, ensure_ascii=False),
        "end_ms": answer.end_ms,
    }


def _turn(row: sa.Row[Any]) -> Turn:
    return Turn(
        row.turn_id,
        row.conversation_id,
        row.parent,
        row.role,
        content=row.content,
        state=TurnState(row.state),
        create_ms=row.create_ms,
        answer=None if row.request_id is None else _answer(row),
    )


def _answer(row: sa.Row[Any]) -> Answer:
    return Answer(
        row.request_id,
        row.model,
        json.loads(row.parameters),
        row.seed,
        json.loads(row.caller or "{}"),
        row.reasoning,
        tuple(json.loads(row.tool_calls)),
        row.finish_reason,
        json.loads(row.usage),
        json.loads(row.error),
        row.end_ms,
    )
