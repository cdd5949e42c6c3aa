"""The rows that control makes of what leaders publish: the first record of each sequence counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.internal.v1.usage_pb2 import UsageRecord
from headrace.v1.common_pb2 import RequestOutcome
from headrace_scheduler.request.usage import use_outcome
from headrace_scheduler.state.events import Acknowledge
from helpers.scheduler_models import Client

ALIVE, BEFORE_PUBLISHING, BEFORE_ACKNOWLEDGING = "", "before publishing", "before acknowledging"
DEATHS = (BEFORE_PUBLISHING, BEFORE_ACKNOWLEDGING)
"""Of a leader, on its way from a record to its acknowledgement."""


class UsageLedger:
    def __init__(self) -> None:
        self.rows: dict[int, UsageRecord] = {}

    def publish(self, command: Acknowledge, client: Client) -> None:
        """Publish the record of an acknowledgement, if it has one."""
        if command.usage is None:
            return
        usage = UsageRecord()
        usage.CopyFrom(command.usage)
        if command.unsettled is not None and client.result is not None:
            use_outcome(usage, outcome(*client.result))
        self.rows.setdefault(usage.sequence, usage)

    def check(self, clients: Mapping[str, Client], told: Iterable[str]) -> None:
        """Every request has one row; that of a client of `told`, what this client was told."""
        assert sorted(self.rows) == list(range(1, len(clients) + 1))
        by_name = {row.request_id: row for row in self.rows.values()}
        for request_id, client in clients.items():
            row = by_name[request_id]
            assert row.output_tokens <= client.made, f"{request_id} pays for what was never made"
            if request_id in told:
                assert client.result == (row.code, row.output_tokens), request_id


def outcome(code: int, output_tokens: int) -> RequestOutcome:
    found = RequestOutcome()
    found.error.code, found.usage.output_tokens = code, output_tokens
    return found
