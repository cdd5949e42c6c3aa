"""What batches have written so far counts against the room of their tenants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    with op.batch_alter_table("batches") as table:
        # Of batches under way, what is stored already does not count.
        table.add_column(
            sa.Column("output_bytes", sa.BigInteger(), nullable=False, server_default="0")
        )
