"""Conversations and their turns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headrace.database.columns import String

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_conversations()
    create_turns()
    op.create_table(
        "facts",
        sa.Column("name", String(), nullable=False),
        sa.Column("value", String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_facts"),
    )


def create_conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("conversation_id", String(), nullable=False),
        sa.Column("tenant", String(), nullable=False),
        sa.Column("owner", String(), nullable=False),
        sa.Column("title", String(), nullable=False),
        sa.Column("system", String(), nullable=False),
        sa.Column("model", String(), nullable=False),
        sa.Column("parameters", String(), nullable=False),
        sa.Column("leaf", String(), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("tags", String(), nullable=False),
        sa.Column("scene", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        sa.Column("update_ms", sa.BigInteger(), nullable=False),
        sa.Column("delete_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("conversation_id", name="pk_conversations"),
    )
    with op.batch_alter_table("conversations") as table:
        table.create_index("ix_conversations_owner", ["tenant", "owner", "update_ms"])


def create_turns() -> None:
    op.create_table(
        "turns",
        sa.Column("turn_id", String(), nullable=False),
        sa.Column("conversation_id", String(), nullable=False),
        sa.Column("parent", String(), nullable=False),
        sa.Column("role", String(), nullable=False),
        sa.Column("content", String(), nullable=False),
        sa.Column("state", String(), nullable=False),
        sa.Column("create_ms", sa.BigInteger(), nullable=False),
        *(sa.Column(name, String(), nullable=True) for name in _OF_ANSWERS),
        sa.Column("end_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.conversation_id"],
            name="fk_turns_conversation_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("turn_id", name="pk_turns"),
        sa.UniqueConstraint("request_id", name="uq_turns_request_id"),
    )
    with op.batch_alter_table("turns") as table:
        table.create_index("ix_turns_conversation_id", ["conversation_id"])
        table.create_index("ix_turns_state", ["state"])


_OF_ANSWERS = (
    *("request_id", "model", "parameters", "seed", "caller"),
    *("reasoning", "tool_calls", "finish_reason", "usage", "error"),
)
