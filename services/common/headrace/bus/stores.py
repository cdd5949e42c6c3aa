"""Names of what the broker stores. Pure.

Buckets are streams too: the stream of `headrace_cards` is `KV_headrace_cards`, and the subject of a
key is `$KV.headrace_cards.<key>`.
"""

from __future__ import annotations

REQUEST_STREAM, RESULT_STREAM, DEAD_STREAM = "REQUESTS", "RESULTS", "DEAD_LETTERS"
USAGE_STREAM, QUOTA_JOURNAL = "USAGE", "QUOTA_JOURNAL"
RESPONSE_STREAM = "RESPONSES"
"""The response cache; it is not backed up."""
CONVERSATION_STREAM = "CONVERSATIONS"
"""What /v1/responses and /v1/conversations store."""
PROBE_STREAM = "STORE_PROBES"
CARD_BUCKET, LEASE_BUCKET, TOKENIZER_BUCKET, FILE_BUCKET = (
    "headrace_cards",
    "headrace_leases",
    "headrace_tokenizers",
    "headrace_files",
)
"""The last two of these are object stores."""
POSITION_BUCKET = "headrace_positions"
"""Up to where the quota keeper has read USAGE_STREAM."""
KEEPER_LEASE = "quota-keeper"
BACKED_UP = (
    # Why in this order: a request that ends meanwhile is saved as one that waits, and runs again,
    # rather than not at all.
    # A request that was saved after its usage record is settled again, as the same row.
    *(REQUEST_STREAM, RESULT_STREAM, DEAD_STREAM, USAGE_STREAM),
    # After the usage: what is settled in it and not yet here is settled again, and charged once.
    QUOTA_JOURNAL,
    *(f"KV_{CARD_BUCKET}", f"OBJ_{TOKENIZER_BUCKET}", f"KV_{LEASE_BUCKET}"),
    # After the results, which have the output of what ends meanwhile.
    CONVERSATION_STREAM,
    # Last, because it is the largest by far: what the database, which is saved after it, knows of
    # files that came meanwhile is then marked as lost.
    f"OBJ_{FILE_BUCKET}",
)
"""Streams of what is nowhere else. The tables are made from control's database."""


def bucket_of(table: str) -> str:
    """Return the bucket of one of `subjects.TABLES`."""
    return f"headrace_{table}"
