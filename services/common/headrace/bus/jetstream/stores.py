"""Streams and buckets: what each stores, for how long, and up to which bound."""

from __future__ import annotations

from nats.js.api import (
    DiscardPolicy,
    KeyValueConfig,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from headrace.bus import RESULT_KEPT_AT_MOST_S, subjects
from headrace.bus.jetstream.tables import table_bucket
from headrace.bus.objects import CONVERSATION_KEPT_AT_MOST_S, RESPONSE_KEPT_AT_MOST_S
from headrace.bus.stores import (
    CARD_BUCKET,
    CONVERSATION_STREAM,
    DEAD_STREAM,
    LEASE_BUCKET,
    POSITION_BUCKET,
    QUOTA_JOURNAL,
    REQUEST_STREAM,
    RESPONSE_STREAM,
    RESULT_STREAM,
    USAGE_STREAM,
)

WRONG_LAST_SEQUENCE = 10071
"""The server's error code for a key that has another revision than expected."""
JOURNAL_BYTES = 1 << 30
"""Far above what the keeper lets it grow to between two snapshots."""
LANE_BOUND = 100_000
"""Unsettled requests of one lane that the broker stores. It bounds the disk, far above the
scheduler's `max_waiting`, which rejects requests before."""
DEAD_LETTER_KEPT_S = 7 * 24 * 3600
USAGE_KEPT_S = 7 * 24 * 3600
USAGE_KEPT_BYTES = 4 << 30
CONVERSATION_BYTES = 4 << 30
"""Of all tenants; each one's own bound is far below."""
ACK_WAIT_S = 24 * 3600
"""Practically never: a leader settles what it pulled, and its successor takes over by creating the
consumer again."""


def streams(replicas: int) -> list[StreamConfig]:
    return [*_request_streams(replicas), *_account_streams(replicas), *_answer_streams(replicas)]


def _request_streams(replicas: int) -> list[StreamConfig]:
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
            # Why not received as they are published, here and below: a process that may both
            # publish and receive a subject can publish anywhere, as the answer to its own message.
            republish=RePublish(
                src=f"{subjects.RESULTS}.*", dest=f"{subjects.ENDED}.{{{{wildcard(1)}}}}"
            ),
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


def _answer_streams(replicas: int) -> list[StreamConfig]:
    return [
        StreamConfig(
            name=RESPONSE_STREAM,
            num_replicas=replicas,
            subjects=[f"{subjects.RESPONSES}.*.*"],
            storage=StorageType.FILE,
            max_age=RESPONSE_KEPT_AT_MOST_S,
            allow_msg_ttl=True,
            max_msgs_per_subject=1,
            # Beyond it the oldest go: a cache refuses nothing.
            max_bytes=1 << 28,
        ),
        StreamConfig(
            name=CONVERSATION_STREAM,
            num_replicas=replicas,
            subjects=[subjects.conversation_part("*")],
            storage=StorageType.FILE,
            max_age=CONVERSATION_KEPT_AT_MOST_S,
            allow_msg_ttl=True,
            max_msgs_per_subject=1,
            max_bytes=CONVERSATION_BYTES,
        ),
    ]


def _account_streams(replicas: int) -> list[StreamConfig]:
    return [
        StreamConfig(
            name=USAGE_STREAM,
            num_replicas=replicas,
            subjects=[subjects.USAGE],
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_age=USAGE_KEPT_S,
            max_bytes=USAGE_KEPT_BYTES,
            duplicate_window=120,
            republish=RePublish(src=subjects.USAGE, dest=subjects.USAGE_STORED),
        ),
        StreamConfig(
            name=QUOTA_JOURNAL,
            num_replicas=replicas,
            subjects=[subjects.QUOTA_JOURNAL],
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=JOURNAL_BYTES,
        ),
    ]


def buckets(replicas: int) -> list[KeyValueConfig]:
    return [
        KeyValueConfig(bucket=LEASE_BUCKET, history=1, storage=StorageType.FILE, replicas=replicas),
        # Why no time to live: a model is configured until its card is removed.
        KeyValueConfig(bucket=CARD_BUCKET, history=1, replicas=replicas),
        KeyValueConfig(bucket=POSITION_BUCKET, history=1, replicas=replicas),
        *(table_bucket(table, replicas) for table in subjects.TABLES),
    ]
