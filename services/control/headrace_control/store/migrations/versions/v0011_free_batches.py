"""The plan `free` bounds the tokens of batches, unless its limits have been changed."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_BEFORE = {"requests_per_minute": 20, "requests_per_day": 1000}
_NOW = _BEFORE | {"batch_tokens_per_day": 1_000_000}


def upgrade() -> None:
    plans = sa.table("plans", *(sa.column(name, sa.String()) for name in ("plan_id", "limits")))
    is_free = plans.c.plan_id == "free"
    limits = op.get_bind().scalar(sa.select(plans.c.limits).where(is_free))
    if limits is not None and {k: v for k, v in json.loads(limits).items() if v} == _BEFORE:
        op.execute(sa.update(plans).where(is_free).values(limits=json.dumps(_NOW)))
