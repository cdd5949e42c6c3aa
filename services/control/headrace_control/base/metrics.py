"""Metrics of control. No label has an id."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

active = Gauge("headrace_control_active", "1 while this process is the active one, else 0.")
outbox_rows = Gauge(
    "headrace_control_outbox_rows",
    "Changes of the database that gateways and schedulers have not received yet.",
)
published_age_s = Gauge(
    "headrace_control_published_age_seconds",
    "Time since the tables on the bus were last known to hold what the database holds; NaN while "
    "this process is not active.",
)
keys = Gauge("headrace_control_keys", "Keys that are published: not revoked.")
published = Counter(
    "headrace_control_published_rows", "Rows that were put or deleted on the bus.", ["table"]
)
repaired = Counter(
    "headrace_control_repaired_rows",
    "Rows of a stamped table that a comparison found to differ from the database.",
    ["table"],
)
reports = Counter("headrace_control_access_reports", "Reports of gateways that were stored.")
unreadable_reports = Counter(
    "headrace_control_unreadable_reports",
    "Reports of workers and leaders that could not be read.",
    ["report"],
)
webhooks = Counter(
    "headrace_control_webhook_attempts",
    "Attempts to deliver an event to a webhook endpoint: delivered, retried later, or dead, which "
    "is given up.",
    ["outcome"],
)
webhooks_waiting = Gauge(
    "headrace_control_webhooks_waiting", "Deliveries of webhooks that wait to be sent, or again."
)
webhooks_dead = Gauge(
    "headrace_control_webhooks_dead", "Deliveries of webhooks of 30 days that were given up."
)
usage_rows = Counter("headrace_control_usage_rows", "Rows of usage that were stored.")
usage_repeated = Counter(
    "headrace_control_usage_repeated", "Records of usage that came again; they changed nothing."
)
usage_unreadable = Counter(
    "headrace_control_usage_unreadable",
    "Records of usage that cannot be rows; they are kept, and not billed.",
)
usage_renamed = Counter(
    "headrace_control_usage_renamed",
    "Rows of usage whose stream and place were another request's before the broker lost its power.",
)
usage_missing = Counter(
    "headrace_control_usage_missing",
    "Messages of usage that were gone from the broker before they were stored.",
)
usage_behind = Gauge(
    "headrace_control_usage_behind", "Messages of usage that the broker has and no row has yet."
)
batch_rows = Counter(
    "headrace_control_batch_rows", "Rows of batches that are finished, by outcome.", ["outcome"]
)
batch_rows_retried = Counter(
    "headrace_control_batch_rows_retried",
    "Calls for rows of batches that had no answer, or one that is not final.",
)
batches_open = Gauge("headrace_control_batches_open", "Batches that have not ended.")
