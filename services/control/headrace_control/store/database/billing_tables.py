"""The tables of accounts: prices, a row for each request that has ended, and what follows from the
rows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from headrace.database.columns import text, time
from headrace_control.store.database.metadata import METADATA

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


def _number(name: str, *, key: bool = False) -> sa.Column[int]:
    options: dict[str, Any] = {"autoincrement": False} if key else {}
    return sa.Column(name, sa.BigInteger, primary_key=key, nullable=False, **options)


def _small(name: str, *, key: bool = False) -> sa.Column[int]:
    options: dict[str, Any] = {"autoincrement": False} if key else {}
    return sa.Column(name, sa.Integer, primary_key=key, nullable=False, **options)


def _flag(name: str, *, key: bool = False) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, primary_key=key, nullable=False)


IS_BILLED_LINE = sa.text("billed_part >= 0")
"""The condition of the index by which a line of a batch is billed once; so that the index is used,
a query has it literally."""

# As UsageRecord. No reference to tenants or keys: a bill outlives both.
usage = sa.Table(
    "usage",
    METADATA,
    text("source", primary_key=True),
    _number("sequence", key=True),
    # Of the record in the stream of usage.
    _number("position"),
    *(text(name) for name in ("request_id", "tenant", "key_id", "person", "model", "version")),
    *(_small(name) for name in ("priority", "kind", "code")),
    _number("input_tokens"),
    _number("cached_input_tokens"),
    _number("output_tokens"),
    _number("reasoning_tokens"),
    *(_number(name) for name in ("arrival_ms", "end_ms", "queue_ms", "first_token_ms")),
    _number("attempts"),
    text("batch_id"),
    _number("batch_line"),
    *(_flag(name) for name in ("cache_hit", "detached")),
    text("engine"),
    _number("upstream_cost_nanos"),
    text("upstream_currency"),
    _number("n"),
    # Of its price when it ended: nano-units a token, and what they come to.
    text("currency"),
    *(_number(name) for name in ("input_nanos", "cached_nanos", "output_nanos", "cost_nanos")),
    # False: another row of the same line of a batch is billed, or none; it costs nothing.
    _flag("billed"),
    # Of a row of a batch that is billed: which of its line's requests; else -1.
    _number("billed_part"),
    # Number of the transaction that recorded it, by which a closed statement has it or not.
    _number("recording"),
    # That published it first, of `usage_leaderships`; 0: none is known.
    _number("leadership"),
    sa.Index(None, "tenant", "end_ms"),
    sa.Index(None, "tenant", "recording"),
    sa.Index(None, "end_ms"),
    sa.Index(
        "uq_usage_billed_line",
        *("batch_id", "batch_line", "billed_part"),
        unique=True,
        sqlite_where=IS_BILLED_LINE,
        postgresql_where=IS_BILLED_LINE,
    ),
)

# Sums of the billed rows of `usage`, for each hour in UTC.
usage_hour = sa.Table(
    "usage_hour",
    METADATA,
    text("tenant", primary_key=True),
    _number("hour_ms", key=True),
    *(text(name, primary_key=True) for name in ("model", "key_id", "person")),
    _flag("batch", key=True),
    _small("kind", key=True),
    text("currency", primary_key=True),
    _number("requests"),
    _number("input_tokens"),
    _number("cached_input_tokens"),
    _number("output_tokens"),
    _number("reasoning_tokens"),
    *(_number(name) for name in ("input_cost_nanos", "cached_cost_nanos", "output_cost_nanos")),
    sa.Index(None, "hour_ms"),
)

# What an account, as key `*`, and each of its keys have spent in a month of the tenant's time zone.
usage_month = sa.Table(
    "usage_month",
    METADATA,
    # Of a tenant without an account: its name.
    text("account_id", primary_key=True),
    text("month", primary_key=True),
    text("key_id", primary_key=True),
    text("currency", primary_key=True),
    _number("requests"),
    _number("cost_nanos"),
    # Percent of the budget at which the last event was.
    _small("notified"),
)

# One row: up to where the stream of usage is stored. Whoever stores usage locks it first.
usage_position = sa.Table(
    "usage_position",
    METADATA,
    _small("id", key=True),
    # Rows of requests that ended before are deleted.
    _number("rows_since_ms"),
    # When the stream was created: one that was made again has another position.
    text("stream"),
    _number("sequence"),
    _number("time_ms"),
    # How many transactions have recorded rows.
    _number("recording"),
    # Rows were stored before their leaderships were, or from another stream: what those had counted
    # by then is not known of the stream that is read now.
    _flag("is_older"),
)

# A leader of a model, from its lease on, as the messages of this stream name it.
usage_leaderships = sa.Table(
    "usage_leaderships",
    METADATA,
    _number("leadership", key=True),
    text("stream"),
    text("model"),
    _number("epoch"),
    # When the first request of its first message ended.
    time("first_ms"),
    sa.UniqueConstraint("stream", "model", "epoch"),
)

# What a leadership has counted for a tenant, as the last of its messages says.
usage_settled = sa.Table(
    "usage_settled",
    METADATA,
    _number("leadership", key=True),
    text("tenant", primary_key=True),
    *(_number(name) for name in ("requests", "input_tokens", "output_tokens")),
    # Of these, what it had counted before, where that is not known.
    *(_number(name) for name in ("older_requests", "older_input", "older_output")),
    # When the last request of that message ended.
    time("time_ms"),
)

# Records of leaderships whose rows another leadership has published: such a request is counted by
# both.
usage_repeated = sa.Table(
    "usage_repeated",
    METADATA,
    _number("leadership", key=True),
    text("source", primary_key=True),
    _number("sequence", key=True),
    text("tenant"),
    _number("input_tokens"),
    _number("output_tokens"),
)

# Records that are no rows, as they came, by their SHA-256.
usage_unreadable = sa.Table(
    "usage_unreadable",
    METADATA,
    text("digest", primary_key=True),
    text("stream"),
    _number("position"),
    text("reason"),
    # In hexadecimal.
    text("record"),
    _number("time_ms"),
)

# Positions whose records were gone before they were stored.
usage_gaps = sa.Table(
    "usage_gaps",
    METADATA,
    text("stream", primary_key=True),
    _number("first", key=True),
    _number("last"),
    _number("time_ms"),
)

# A tenant, as it is billed. It stays when the tenant is deleted; its name may then be another's.
accounts = sa.Table(
    "accounts",
    METADATA,
    text("account_id", primary_key=True),
    text("tenant", index=True),
    # As the tenant has them, or had at last.
    text("time_zone"),
    text("currency"),
    time("create_ms"),
    time("delete_ms", nullable=True),
)

# Closed statements. Rows are inserted, and never changed nor deleted.
statements = sa.Table(
    "statements",
    METADATA,
    # Without gaps, from 1.
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    text("account_id", sa.ForeignKey("accounts.account_id")),
    text("month"),
    time("end_ms"),
    # Up to which recording of usage, and which correction, it has what is in it.
    sa.Column("last_recording", sa.BigInteger, nullable=False),
    sa.Column("last_correction", sa.BigInteger, nullable=False),
    # The statement as JSON, and its SHA-256.
    text("content"),
    text("hash"),
    time("close_ms"),
    sa.UniqueConstraint("account_id", "month"),
)

corrections = sa.Table(
    "corrections",
    METADATA,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    text("account_id", sa.ForeignKey("accounts.account_id"), index=True),
    # That it corrects.
    text("month"),
    sa.Column("amount_nanos", sa.BigInteger, nullable=False),
    text("reason"),
    text("actor"),
    time("create_ms"),
)
