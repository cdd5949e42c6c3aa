"""Run by alembic, with the connection of `Schema.migrate`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from headrace_web.store.database.metadata import METADATA

connection: sa.Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    render_as_batch=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
