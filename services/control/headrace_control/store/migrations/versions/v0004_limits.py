"""Limits of single models, what a tenant is billed in, and the plan `free`."""

from __future__ import annotations

import json
from time import time_ns

import sqlalchemy as sa
from alembic import op

from headrace.database.columns import String

revision = "0004"
down_revision = "0003"

_FREE = {"requests_per_minute": 20, "requests_per_day": 1000}


def upgrade() -> None:
    with op.batch_alter_table("tenants") as table:
        for name, default in (("model_limits", "{}"), ("time_zone", "UTC"), ("currency", "USD")):
            table.add_column(sa.Column(name, String(), nullable=False, server_default=default))
        for name in ("allow_on_keeper_loss", "response_cache", "forbid_upstream_engines"):
            table.add_column(
                sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())
            )
    with op.batch_alter_table("keys") as table:
        table.add_column(sa.Column("model_limits", String(), nullable=False, server_default="{}"))
    create_free_plan()


def create_free_plan() -> None:
    """Create it unless there is a plan of this name, whatever limits that one has."""
    plans = sa.table(
        "plans",
        *(sa.column(name, String()) for name in ("plan_id", "display_name", "limits")),
        *(sa.column(name, sa.BigInteger()) for name in ("create_ms", "update_ms")),
    )
    query = sa.select(plans.c.plan_id).where(plans.c.plan_id == "free")
    if op.get_bind().scalar(query) is not None:
        return
    now_ms = time_ns() // 1_000_000
    values = {"plan_id": "free", "display_name": "Free", "limits": json.dumps(_FREE)}
    op.execute(sa.insert(plans).values(**values, create_ms=now_ms, update_ms=now_ms))
