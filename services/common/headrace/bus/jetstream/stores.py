"""Streams and buckets: what is kept where, for how long, and up to which bound."""

from __future__ import annotations

from nats.js.api import (
    DiscardPolicy,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from headrace.bus import RESULT_KEPT_AT_MOST_S, subjects

REQUEST_STREAM, RESULT_STREAM, DEAD_STREAM = "REQUESTS", "RESULTS", "DEAD_LETTERS"
CARD_BUCKET, LEASE_BUCKET, TOKENIZER_BUCKET = (
    "headrace_cards",
    "headrace_leases",
    "headrace_tokenizers",
)

WRONG_LAST_SEQUENCE = 10071
"""The server's code where a key has another revision than was expected."""
LANE_BOUND = 100_000
"""Unsettled requests of one lane that the broker holds. A bound on its disk, far above the
scheduler's own `max_waiting`, which is the one that callers meet."""
DEAD_LETTER_KEPT_S = 7 * 24 * 3600
ACK_WAIT_S = 24 * 3600
"""A leader holds what it pulled until it is settled, and its successor takes everything over
by making the consumer anew: redelivery by time-out is never wanted."""


def streams(replicas: int) -> list[StreamConfig]:
    return [
        StreamConfig(
            name=REQUEST_STREAM,
            num_replicas=replicas,
            subjects=[f"{subjects.REQUESTS}.*.*"],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_msgs_per_subject=LANE_BOUND,
            discard_new_per_subject=True,
            duplicate_window=120,
        ),
        StreamConfig(
            name=RESULT_STREAM,
            num_replicas=replicas,
            subjects=[f"{subjects.RESULTS}.*"],
            storage=StorageType.FILE,
            max_age=RESULT_KEPT_AT_MOST_S,
            allow_msg_ttl=True,
            max_msgs_per_subject=1,
            max_bytes=1 << 30,
        ),
        StreamConfig(
            name=DEAD_STREAM,
            num_replicas=replicas,
            subjects=[f"{subjects.DEAD_LETTERS}.*"],
            storage=StorageType.FILE,
            max_age=DEAD_LETTER_KEPT_S,
            max_bytes=1 << 28,
        ),
    ]


def buckets(replicas: int) -> list[KeyValueConfig]:
    return [
        KeyValueConfig(bucket=LEASE_BUCKET, history=1, storage=StorageType.FILE, replicas=replicas),
        # Without a time to live: a model is configured until its card is removed.
        KeyValueConfig(bucket=CARD_BUCKET, history=1, replicas=replicas),
    ]
