"""The gateways by their reports; the requests of a silent one are orphaned."""

from __future__ import annotations

from typing import NamedTuple

from headrace.internal.v1.reports_pb2 import GatewayReport


class GatewayAddress(NamedTuple):
    gateway_id: str
    delivery_address: str


class Gateways:
    """When each gateway that has requests here, or reports, last reported."""

    def __init__(self) -> None:
        self._received_s: dict[str, float] = {}
        self.suspects: set[str] = set()
        """Those that other gateways cannot connect to: a notice checks whether they live."""
        self._addresses: dict[str, str] = {}
        """Addresses of the gateways that accept requests of others."""
        self._picks = 0

    def add_named(self, gateway_id: str, *, now_s: float) -> None:
        """Add a gateway that a request names; if it never reported, its silence begins now."""
        self._received_s.setdefault(gateway_id, now_s)

    def apply_report(self, report: GatewayReport, *, now_s: float) -> None:
        gateway_id = report.gateway_id
        self._received_s[gateway_id] = max(now_s, self._received_s.get(gateway_id, now_s))
        if report.delivery_address and not report.draining:
            self._addresses[gateway_id] = report.delivery_address
        else:
            self._addresses.pop(gateway_id, None)

    def pick(self, *, other_than: str) -> GatewayAddress | None:
        """Return a gateway to assign a request to, in turns; None if there is no other."""
        able = sorted(self._addresses.keys() - {other_than})
        if not able:
            return None
        self._picks += 1
        chosen = able[self._picks % len(able)]
        return GatewayAddress(chosen, self._addresses[chosen])

    def remove(self, gateway_id: str) -> None:
        self._received_s.pop(gateway_id, None)
        self.suspects.discard(gateway_id)
        self._addresses.pop(gateway_id, None)

    def suspect(self, gateway_id: str) -> None:
        """Note that another gateway cannot connect to it."""
        if gateway_id in self._received_s:
            self.suspects.add(gateway_id)

    def silent_since(self, received_before_s: float) -> list[str]:
        return [g for g, received_s in self._received_s.items() if received_s < received_before_s]

    def restart_silence(self, now_s: float) -> None:
        """Let the silence of every gateway begin now, because no report could be received."""
        self._received_s = dict.fromkeys(self._received_s, now_s)

    @property
    def ids(self) -> list[str]:
        return list(self._received_s)
