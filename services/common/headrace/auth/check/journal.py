"""What a process reports of its callers: keys that were used, attempts that failed. Pure."""

from __future__ import annotations

from headrace.auth.check.failures import FailureLog
from headrace.internal.v1.access_pb2 import AccessReport, FailedAttempts, KeyDigest, KeyUse

NOTED_EVERY_MS = 10_000
MAX_USES = 2000


class AccessJournal:
    """Collects what the next report has.

    A key's use is noted at most every ten seconds; a report has at most `MAX_USES` of them.
    """

    def __init__(self) -> None:
        self._failures = FailureLog()
        self._noted_ms: dict[str, int] = {}
        self._uses: dict[str, KeyUse] = {}
        self._sequence = 0

    def is_due(self, key_id: str, now_ms: int) -> bool:
        """Return whether the next use of this key is to be noted."""
        return now_ms - self._noted_ms.get(key_id, -NOTED_EVERY_MS) >= NOTED_EVERY_MS

    def use(self, key_id: str, client: str, now_ms: int, renewed: KeyDigest | None = None) -> None:
        """Note a use; `renewed` is the key's digest under the current pepper, if it has none."""
        self._noted_ms[key_id] = now_ms
        use = KeyUse(key_id=key_id, last_used_ms=now_ms, client=client)
        if renewed is not None:
            use.renewed.CopyFrom(renewed)
        self._uses[key_id] = use

    def fail(self, client: str, reason: str, key_id: str, now_ms: int) -> None:
        """Note a failed attempt."""
        self._failures.add(client, reason, key_id, now_ms)

    def take(self, process_id: str, now_ms: int) -> AccessReport | None:
        """Return a report of what is new; None if nothing is."""
        due = list(self._uses)[:MAX_USES]
        uses = [self._uses.pop(key_id) for key_id in due]
        failures: list[FailedAttempts] = self._failures.take()
        # Keys that are used no more, as revoked ones, are forgotten.
        self._noted_ms = {k: at for k, at in self._noted_ms.items() if now_ms - at < NOTED_EVERY_MS}
        if not uses and not failures:
            return None
        self._sequence += 1
        return AccessReport(
            gateway_id=process_id, sequence=self._sequence, uses=uses, failures=failures
        )
