"""The tables of chats. `migrations/` makes them; a test holds the two against each other.

Times are Unix milliseconds. Lists and maps are JSON.
"""

from __future__ import annotations

import sqlalchemy as sa

from headrace.database.columns import flag, text, time
from headrace_web.store.database.metadata import METADATA

conversations = sa.Table(
    "conversations",
    METADATA,
    text("conversation_id", primary_key=True),
    text("tenant"),
    text("owner"),
    text("title"),
    text("system"),
    text("model"),
    text("parameters"),
    text("leaf"),
    flag("pinned"),
    text("tags"),
    text("scene"),
    time("create_ms"),
    time("update_ms"),
    time("delete_ms", nullable=True),
    sa.Index("ix_conversations_owner", "tenant", "owner", "update_ms"),
)

turns = sa.Table(
    "turns",
    METADATA,
    text("turn_id", primary_key=True),
    text(
        "conversation_id",
        sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
        index=True,
    ),
    # Empty: a first turn. Not a foreign key, so that one statement deletes them all.
    text("parent"),
    text("role"),
    text("content"),
    text("state", index=True),
    time("create_ms"),
    # Of answers; null of questions.
    text("request_id", nullable=True, unique=True),
    text("model", nullable=True),
    text("parameters", nullable=True),
    text("seed", nullable=True),
    text("caller", nullable=True),
    text("reasoning", nullable=True),
    text("tool_calls", nullable=True),
    text("finish_reason", nullable=True),
    text("usage", nullable=True),
    text("error", nullable=True),
    time("end_ms", nullable=True),
)

# Which version of Headrace has written last.
facts = sa.Table("facts", METADATA, text("name", primary_key=True), text("value"))
