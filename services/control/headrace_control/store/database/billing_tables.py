"""The tables of what usage costs."""

from __future__ import annotations

import sqlalchemy as sa

from headrace_control.store.database.columns import METADATA, text, time

# Rows are inserted, and deleted before they are in force; never changed.
prices = sa.Table(
    "prices",
    METADATA,
    # Digest of the model, currency and time.
    text("price_id", primary_key=True),
    text("model"),
    text("currency"),
    time("valid_from_ms"),
    # For each token, in nano-units.
    sa.Column("input_nanos", sa.BigInteger, nullable=False),
    sa.Column("cached_input_nanos", sa.BigInteger, nullable=False),
    sa.Column("output_nanos", sa.BigInteger, nullable=False),
    time("create_ms"),
    sa.UniqueConstraint("model", "currency", "valid_from_ms"),
)
