"""Gateways by their reports: a silent one has orphaned its requests."""

from __future__ import annotations

from typing import NamedTuple

from headrace.internal.v1.reports_pb2 import GatewayReport


class GatewayAddress(NamedTuple):
    gateway_id: str
    delivery_address: str


class Gateways:
    """When each gateway that has requests here, or reports, was last heard."""

    def __init__(self) -> None:
        self._heard_s: dict[str, float] = {}
        self._suspects: set[str] = set()
        self._addresses: dict[str, str] = {}
        """Of those that take requests over."""
        self._turns = 0

    def add_named(self, gateway_id: str, *, now_s: float) -> None:
        """A request names it; silence begins now if it was never heard."""
        self._heard_s.setdefault(gateway_id, now_s)

    def apply_report(self, report: GatewayReport, *, now_s: float) -> None:
        gateway_id = report.gateway_id
        self._heard_s[gateway_id] = max(now_s, self._heard_s.get(gateway_id, now_s))
        if report.delivery_address and not report.draining:
            self._addresses[gateway_id] = report.delivery_address
        else:
            self._addresses.pop(gateway_id, None)

    def pick(self, *, other_than: str) -> GatewayAddress | None:
        """One that may be given a request, each in its turn; None: there is no other."""
        hosts = sorted(self._addresses.keys() - {other_than})
        if not hosts:
            return None
        self._turns += 1
        chosen = hosts[self._turns % len(hosts)]
        return GatewayAddress(chosen, self._addresses[chosen])

    def remove(self, gateway_id: str) -> None:
        self._heard_s.pop(gateway_id, None)
        self._suspects.discard(gateway_id)
        self._addresses.pop(gateway_id, None)

    def suspect(self, gateway_id: str) -> None:
        """Another gateway cannot connect to it: it is to be asked for a sign of life."""
        if gateway_id in self._heard_s:
            self._suspects.add(gateway_id)

    def clear_suspicion(self, gateway_id: str) -> bool:
        """The sign came, or did not; whether it was waited for."""
        was_suspected = gateway_id in self._suspects
        self._suspects.discard(gateway_id)
        return was_suspected

    @property
    def suspects(self) -> int:
        return len(self._suspects)

    def is_suspected(self, gateway_id: str) -> bool:
        return gateway_id in self._suspects

    def silent_since(self, received_before_s: float) -> list[str]:
        return [g for g, received_s in self._heard_s.items() if received_s < received_before_s]

    def restart_silence(self, now_s: float) -> None:
        """We could not hear: everybody's silence begins anew."""
        self._heard_s = dict.fromkeys(self._heard_s, now_s)

    @property
    def ids(self) -> list[str]:
        return list(self._heard_s)
