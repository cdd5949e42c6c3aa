"""Turns: questions and answers, written before they are asked and once they have ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.errors import InvalidRequest, ResourceNotFound
from headrace_web.base.records import Answer, Conversation, Owner, Turn, TurnState
from headrace_web.store.conversations import conversation_of
from headrace_web.store.database.tables import conversations, turns
from headrace_web.store.database.transactions import Database

_OPEN = [state.value for state in TurnState if state.is_open]


class Turns:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, owner: Owner, new: Sequence[Turn], *, at_most: int) -> Sequence[Turn]:
        """Add turns to one conversation, whose shown branch ends with the last one then.

        Sent again, it changes nothing. All of them are added, or none.

        Args:
            at_most: turns that a conversation may have.

        Returns:
            The turns as they are stored.

        Raises:
            ResourceNotFound: the owner has no such conversation, or it has no such parent.
            InvalidRequest: the conversation would have too many turns.
        """
        conversation_id, now_ms = new[0].conversation_id, self._database.now_ms()
        async with self._database.writing() as connection:
            await _require(connection, owner, conversation_id)
            known = {turn.turn_id for turn in await _all(connection, conversation_id)}
            fresh = [turn for turn in new if turn.turn_id not in known]
            if fresh:
                if len(known) + len(fresh) > at_most:
                    fact = f"the conversation has {len(known)} turns; {at_most} is the limit"
                    raise InvalidRequest(f"{fact}: begin another one")
                for turn in fresh:
                    if turn.parent and turn.parent not in known:
                        raise ResourceNotFound(f"turn {turn.parent[:64]} not found")
                    known.add(turn.turn_id)
                    await connection.execute(sa.insert(turns).values(_values(turn, now_ms)))
                shown = {"leaf": new[-1].turn_id, "update_ms": now_ms}
                await connection.execute(
                    sa.update(conversations)
                    .where(conversations.c.conversation_id == conversation_id)
                    .values(shown)
                )
            ids = [turn.turn_id for turn in new]
            found = {t.turn_id: t for t in await _all(connection, conversation_id)}
        try:
            return [found[turn_id] for turn_id in ids]
        except KeyError:
            raise ResourceNotFound("a turn of this id is in another conversation") from None

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

    async def started(self, turn_id: str) -> None:
        """Mark a pending answer: the mesh has its request."""
        await self._end_if_open(turn_id, {"state": TurnState.RUNNING.value})

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
