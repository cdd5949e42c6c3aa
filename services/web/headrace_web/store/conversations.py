"""Conversations: made, listed, searched, changed, deleted and restored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from headrace.errors import InvalidRequest, ResourceNotFound
from headrace_web.base.records import Conversation, Owner
from headrace_web.store.database.tables import conversations, turns
from headrace_web.store.database.transactions import Database

MAX_PAGE = 200


@dataclass(frozen=True, slots=True)
class ConversationFilter:
    """Which conversations of an owner are listed, newest first."""

    words: str = ""
    """Text that the title or a turn contains, whatever the case of its ASCII letters."""
    tag: str = ""
    before: tuple[int, str] | None = None
    """`update_ms` and id of the last one that was listed; None: from the newest."""
    size: int = 100


class Conversations:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, new: Conversation, *, at_most: int) -> Conversation:
        """Store a conversation; the same one again changes nothing.

        Args:
            at_most: conversations that an owner may have.

        Raises:
            InvalidRequest: the owner has as many.
            ResourceNotFound: the id is another owner's.
        """
        now_ms = self._database.now_ms()
        async with self._database.writing() as connection:
            known = await connection.execute(
                sa.select(conversations).where(
                    conversations.c.conversation_id == new.conversation_id
                )
            )
            if (row := known.first()) is not None:
                if conversation_of(row).owner != new.owner:
                    raise _not_found(new.conversation_id)
                return conversation_of(row)
            count = sa.select(sa.func.count()).select_from(conversations).where(_of(new.owner))
            if (await connection.scalar(count) or 0) >= at_most:
                fact = f"there are {at_most} conversations, which is the limit; delete some first"
                raise InvalidRequest(fact)
            values = _values(new) | {
                "create_ms": new.create_ms or now_ms,
                "update_ms": new.update_ms or now_ms,
            }
            await connection.execute(sa.insert(conversations).values(values))
            made = await connection.execute(
                sa.select(conversations).where(
                    conversations.c.conversation_id == new.conversation_id
                )
            )
            return conversation_of(made.one())

    async def get(self, owner: Owner, conversation_id: str) -> Conversation:
        """Return a conversation that is not deleted.

        Raises:
            ResourceNotFound: the owner has none of this id.
        """
        async with self._database.reading() as connection:
            query = sa.select(conversations).where(_one(owner, conversation_id))
            row = (await connection.execute(query)).first()
        if row is None:
            raise _not_found(conversation_id)
        return conversation_of(row)

    async def list(self, owner: Owner, which: ConversationFilter) -> Sequence[Conversation]:
        """Return at most `which.size` conversations, that which was changed last first."""
        c = conversations.c
        query = sa.select(conversations).where(_of(owner), c.delete_ms.is_(None))
        if which.words:
            pattern = f"%{_escaped(which.words)}%"
            spoken = sa.select(turns.c.conversation_id).where(
                turns.c.conversation_id == c.conversation_id,
                turns.c.content.ilike(pattern, escape="\\"),
            )
            query = query.where(sa.or_(c.title.ilike(pattern, escape="\\"), spoken.exists()))
        if which.tag:
            # Tags are a JSON list of strings, so that a tag stands there between quotes.
            tag = _escaped(json.dumps(which.tag, ensure_ascii=False))
            query = query.where(c.tags.like(f"%{tag}%", escape="\\"))
        if which.before is not None:
            key = sa.tuple_(c.update_ms, c.conversation_id)
            query = query.where(key < sa.tuple_(*which.before, types=[sa.BigInteger(), sa.Text()]))
        query = query.order_by(c.update_ms.desc(), c.conversation_id.desc())
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.limit(min(which.size, MAX_PAGE)))).all()
        return [conversation_of(row) for row in rows]

    async def change(
        self, owner: Owner, conversation_id: str, values: dict[str, Any], *, touch: bool = False
    ) -> Conversation:
        """Change some fields, by their names in `Conversation`.

        Args:
            touch: whether it counts as changed now, and goes to the top of the list.

        Raises:
            ResourceNotFound: the owner has none of this id.
        """
        stored = {name: _stored(value) for name, value in values.items()}
        if touch:
            stored["update_ms"] = self._database.now_ms()
        async with self._database.writing() as connection:
            if stored:
                which = _one(owner, conversation_id)
                await connection.execute(sa.update(conversations).where(which).values(stored))
            query = sa.select(conversations).where(_one(owner, conversation_id))
            row = (await connection.execute(query)).first()
        if row is None:
            raise _not_found(conversation_id)
        return conversation_of(row)

    async def delete(self, owner: Owner, conversation_id: str) -> None:
        """Delete a conversation, which can be restored for a time; again: no change.

        Raises:
            ResourceNotFound: the owner never had one of this id, or it is gone for good.
        """
        await self._mark(owner, conversation_id, self._database.now_ms())

    async def restore(self, owner: Owner, conversation_id: str) -> Conversation:
        """Restore a deleted conversation.

        Raises:
            ResourceNotFound: it is gone for good, or was never there.
        """
        await self._mark(owner, conversation_id, None)
        return await self.get(owner, conversation_id)

    async def _mark(self, owner: Owner, conversation_id: str, delete_ms: int | None) -> None:
        c = conversations.c
        update = (
            sa.update(conversations)
            .where(_of(owner), c.conversation_id == conversation_id)
            .values(delete_ms=delete_ms)
        )
        async with self._database.writing() as connection:
            result = await connection.execute(update)
        if not result.rowcount:
            raise _not_found(conversation_id)

    async def remove_deleted(self, before_ms: int) -> int:
        """Remove for good what was deleted before this time; return how many there were."""
        delete = sa.delete(conversations).where(conversations.c.delete_ms < before_ms)
        async with self._database.writing() as connection:
            return (await connection.execute(delete)).rowcount


def _of(owner: Owner) -> sa.ColumnElement[bool]:
    c = conversations.c
    return sa.and_(c.tenant == owner.tenant, c.owner == owner.actor)


def _one(owner: Owner, conversation_id: str) -> sa.ColumnElement[bool]:
    c = conversations.c
    is_it = sa.and_(c.conversation_id == conversation_id, c.delete_ms.is_(None))
    return sa.and_(_of(owner), is_it)


def _not_found(conversation_id: str) -> ResourceNotFound:
    return ResourceNotFound(f"conversation {conversation_id[:64]} not found")


def _escaped(words: str) -> str:
    return words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _stored(value: Any) -> Any:
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    return json.dumps(value, ensure_ascii=False)


def _values(record: Conversation) -> dict[str, Any]:
    names = ("title", "system", "model", "parameters", "leaf", "pinned", "tags", "scene")
    return {
        "conversation_id": record.conversation_id,
        "tenant": record.owner.tenant,
        "owner": record.owner.actor,
        **{name: _stored(getattr(record, name)) for name in names},
        "delete_ms": record.delete_ms,
    }


def conversation_of(row: sa.Row[Any]) -> Conversation:
    """Return the record of a row."""
    return Conversation(
        row.conversation_id,
        Owner(row.tenant, row.owner),
        title=row.title,
        system=row.system,
        model=row.model,
        parameters=json.loads(row.parameters),
        leaf=row.leaf,
        pinned=row.pinned,
        tags=tuple(json.loads(row.tags)),
        scene=row.scene,
        create_ms=row.create_ms,
        update_ms=row.update_ms,
        delete_ms=row.delete_ms,
    )
