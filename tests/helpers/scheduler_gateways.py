"""The gateways and clients of the scheduler's world: which gateway holds which request."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from headrace.bus.subjects import ANY_GATEWAY
from headrace.errors import GatewayUnreachable
from headrace.internal.v1.reports_pb2 import ResumePoint
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import Machine
from headrace_scheduler.runtime.handlers import take_over_response
from headrace_scheduler.state.events import (
    CancelRequested,
    Event,
    NoticeAnswered,
    NoticeUnanswered,
    SendNotice,
)
from helpers.scheduler_events import gateway_reported, point, settled, take_over_requested
from helpers.scheduler_models import Client


class Life(Enum):
    """Of a gateway; one that is gone comes back under another name."""

    LIVES = auto()
    FROZEN = auto()
    """It receives and sends nothing; later it goes on as if no time had passed."""
    LEAVING = auto()
    """It has closed its streams, and is about to report that it leaves."""
    GONE = auto()


@dataclass
class GatewayModel:
    gateway_id: str
    life: Life = Life.LIVES
    unread_notices: list[SendNotice] = field(default_factory=list)
    """What came while it was frozen."""

    @property
    def reports(self) -> bool:
        return self.life in (Life.LIVES, Life.LEAVING)


class Callers:
    """The world's side of the gateways; the machine is `World`'s."""

    now_s: float
    settings: SchedulerSettings
    machine: Machine
    is_crowded = False
    """Orphans were too many to be kept, once."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}
        self.gateways = {i: GatewayModel(i) for i in ("g", "h")}
        # What an operator resends is as if its gateway had died.
        self.gateways[ANY_GATEWAY] = GatewayModel(ANY_GATEWAY, Life.GONE)
        self.draining: set[str] = set()
        """Those that report that they are about to leave."""
        self.full: set[str] = set()
        """Those that accept no request that is assigned to them."""
        self.told: set[str] = set()
        """Requests whose client has seen their regular end."""
        self.settles = True
        """Gateways live until their leader has what they have stored as results."""
        self.leader_dies = ""
        """When, on its way from a usage record to its acknowledgement."""
        self.kept: list[Event] = []
        """Settlements of requests that a gateway was to take over, and whose result it found."""
        self.unconfirmed: dict[str, Event] = {}
        """Settlements that gateways repeat, by request."""
        self.notified_ends: set[str] = set()
        """Requests whose gateway was notified of their end."""

    def apply(self, *events: Event) -> None:
        raise NotImplementedError

    def living(self) -> list[str]:
        return [i for i, g in self.gateways.items() if g.life is Life.LIVES]

    # Callers

    def settle(self, request_id: str, code: int = 0) -> None:
        client = self.clients[request_id]
        client.open, client.result = False, (code, len(client.seen))
        if code == 0:
            self.told.add(request_id)
        event = settled(request_id, code=code, output_tokens=len(client.seen), since=client.since)
        self.unconfirmed[request_id] = event
        if self.settles:
            self.apply(event)
        if self.settles and not self.leader_dies:
            self.unconfirmed.pop(request_id, None)

    def settle_again(self) -> None:
        """Those whose settlement no leader has confirmed."""
        again, self.unconfirmed = self.unconfirmed, {}
        self.apply(*again.values())

    def cancel(self, request_id: str) -> None:
        self.clients[request_id].is_cancelled = True
        self.apply(CancelRequested(request_id))

    def store_result(self, request_id: str, code: int, output_tokens: int) -> None:
        """Its leader does, for no gateway could, unless one has."""
        client = self.clients[request_id]
        client.open = False if client.detached else client.open
        client.result = client.result or (code, output_tokens)

    def is_connected(self, request_id: str) -> bool:
        """Whether anything comes through to its client now."""
        client = self.clients[request_id]
        return client.is_present and self.gateways[client.gateway].life is Life.LIVES

    # Gateways

    def beat(self) -> None:
        for gateway in list(self.gateways.values()):
            if gateway.reports:
                self.apply(self.report_of(gateway))

    def report_of(self, gateway: GatewayModel) -> Event:
        gateway_id, taken = gateway.gateway_id, dict[str, int]()
        for request_id, client in self.clients.items():
            holds = self._holds(gateway_id, request_id)
            since = client.since if holds else client.former.get(gateway_id, 0)
            if since:
                taken[request_id] = since
        return gateway_reported(
            gateway_id,
            received_s=self.now_s,
            taken_over=taken,
            address=f"at {gateway_id}",
            draining=gateway_id in self.draining,
        )

    def kill_gateway(self, gateway_id: str) -> None:
        """Its clients may come to another; those of answers in one piece do not."""
        self.gateways[gateway_id].life = Life.GONE
        self.gateways[f"{gateway_id}'"] = GatewayModel(f"{gateway_id}'")
        for client in self.clients.values():
            client.former.pop(gateway_id, None)
            if client.gateway == gateway_id and client.open and not client.away:
                client.away = client.open = client.attachable
                client.left_s = self.now_s

    def drain_gateway(self, gateway_id: str) -> None:
        """It must stop: its streams go on elsewhere, its other answers end here."""
        self.gateways[gateway_id].life = Life.LEAVING
        self.draining.add(gateway_id)
        for request_id, client in self.clients.items():
            for since in filter(None, [client.former.pop(gateway_id, None)]):
                self.apply(settled(request_id, code=1, since=since))
            if client.gateway != gateway_id or not client.is_present:
                continue
            if client.attachable:
                client.away, client.left_s = True, self.now_s
            else:
                self.settle(request_id, code=14)

    def leave(self, gateway_id: str) -> None:
        self.apply(gateway_reported(gateway_id, received_s=self.now_s, leaving=True))
        self.kill_gateway(gateway_id)

    def thaw(self, gateway_id: str) -> None:
        """What came meanwhile is received, though no leader waits for an answer any more."""
        gateway = self.gateways[gateway_id]
        gateway.life = Life.LIVES
        self.apply(self.report_of(gateway))
        for notice in gateway.unread_notices:
            self.receive(notice)
            self._settle_ended(notice)
        gateway.unread_notices.clear()
        for request_id, client in self.clients.items():
            if (since := client.former.pop(gateway_id, None)) is not None:
                found = self.machine.find(request_id)
                if found is None or found.record.held_since_attempt <= since:
                    client.is_cancelled = True  # Its reader left, before another gateway had it.
                self.apply(settled(request_id, code=1, since=since))

    def finish_gateways(self) -> None:
        """Those half-way between living and gone come to one of both."""
        self.full.clear()
        self.draining.clear()
        for gateway in list(self.gateways.values()):
            if gateway.life is Life.FROZEN:
                self.thaw(gateway.gateway_id)
            elif gateway.life is Life.LEAVING:
                self.leave(gateway.gateway_id)

    # Clients that come back

    def give_up(self, request_id: str) -> None:
        """Its gateway is frozen: the client leaves, for another."""
        client = self.clients[request_id]
        client.former[client.gateway] = client.since
        client.away, client.left_s = True, self.now_s

    def come_back(self, request_id: str, gateway_id: str, outcome: str = "received") -> None:
        """The client comes to a gateway, which requests to take it over, and repeats that.

        The gateway's resume point is "received", "unanswered" or "lost".
        """
        client = self.clients[request_id]
        if not client.away or gateway_id not in self.living():
            return
        if client.kept:  # A gateway looks for a result first.
            client.open = client.away = False
            return
        self.apply(take_over_requested(request_id, gateway_id, unreachable=client.gateway))
        found = self.machine.find(request_id)
        if found is None:
            if not self.machine.is_holding and not client.detached:
                self._find_ended(request_id, client)
            return
        answer = take_over_response(found, take_over_requested(request_id, gateway_id).request)
        if answer.record.gateway_id == gateway_id:
            self._hold(request_id, client, answer.record, outcome)

    def come_back_all(self) -> None:
        for request_id, client in self.clients.items():
            if not client.detached:
                self.come_back(request_id, self.living()[0])

    def _find_ended(self, request_id: str, client: Client) -> None:
        """It was abandoned, for a reason."""
        ends_s = min(client.left_s + self.settings.orphan_grace_s, client.deadline_s)
        has_reason = client.is_cancelled or request_id in self.notified_ends
        assert has_reason or self.is_crowded or self.now_s >= ends_s, request_id
        client.open = client.away = False

    def _hold(self, request_id: str, client: Client, record: RequestRecord, outcome: str) -> None:
        made = list(record.progress[0].output_ids) if record.progress else []
        assert made == client.seen[: len(made)] or client.seen == made[: len(client.seen)]
        gateway_id, since = record.gateway_id, record.held_since_attempt
        client.gateway, client.since = gateway_id, since
        client.fence = client.newest = record.attempt
        if outcome == "received":
            client.away, client.seen = False, made
            client.former.pop(gateway_id, None)
        if outcome != "lost":
            stands = point(request_id, record.attempt, made, cause=client.cause)
            self.apply(take_over_requested(request_id, gateway_id, stands=stands))

    # Notices

    def on_notice(self, notice: SendNotice) -> None:
        gateway = self.gateways[notice.gateway_id]
        match gateway.life:
            case Life.GONE:
                self.apply(NoticeUnanswered(notice, is_disconnected=True))
            case Life.FROZEN:
                gateway.unread_notices.append(notice)
                self.apply(NoticeUnanswered(notice))
            case _:
                points, unknown = self.receive(notice)
                self.apply(NoticeAnswered(notice, points, unknown))
                self._settle_ended(notice)
                kept, self.kept = self.kept, []
                self.apply(*kept)

    def lose_notice(self, notice: SendNotice, *, arrives: bool) -> None:
        gateway = self.gateways[notice.gateway_id]
        if gateway.life is Life.FROZEN:
            gateway.unread_notices.append(notice)
        elif arrives and gateway.reports:
            self.receive(notice)
        self.apply(NoticeUnanswered(notice))

    def keep_for_frozen(self, notice: SendNotice) -> None:
        """Keep a notice of a leader that is gone for a gateway that will read it later."""
        if (gateway := self.gateways[notice.gateway_id]).life is Life.FROZEN:
            gateway.unread_notices.append(notice)

    def receive(self, notice: SendNotice) -> tuple[tuple[ResumePoint, ...], tuple[str, ...]]:
        """Return a gateway's answer. One that leaves reports no unknown requests."""
        gateway_id, points = notice.gateway_id, []
        given = {record.request_id: record for record in notice.records}
        unknown = [i for i, _ in notice.ended if not self._holds(gateway_id, i)]
        for request_id, attempt in notice.fences:
            client = self.clients[request_id]
            if self._holds(gateway_id, request_id):
                client.fence = max(client.fence, attempt)
                points.append(point(request_id, client.newest, client.seen, cause=client.cause))
            elif request_id in given and client.result is not None:
                code, made = client.result
                self.kept.append(settled(request_id, code=code, output_tokens=made, since=attempt))
            elif request_id in given and self._takes(gateway_id, client):
                points.append(self._take_given(client, given[request_id]))
            else:
                unknown.append(request_id)
        if self.gateways[gateway_id].life is Life.LEAVING:
            unknown = []
        return tuple(points), tuple(unknown)

    def _takes(self, gateway_id: str, client: Client) -> bool:
        lives = self.gateways[gateway_id].life is Life.LIVES
        return client.open and lives and gateway_id not in self.full | self.draining

    def _take_given(self, client: Client, record: RequestRecord) -> ResumePoint:
        assert client.detached, "only a detached request is assigned"
        made = list(record.progress[0].output_ids) if record.progress else []
        assert made == client.seen[: len(made)] or client.seen == made[: len(client.seen)]
        client.gateway, client.since = record.gateway_id, record.held_since_attempt
        client.fence = client.newest = record.attempt
        client.away, client.seen = False, made
        return point(record.request_id, record.attempt, made, cause=client.cause)

    def _settle_ended(self, notice: SendNotice) -> None:
        for request_id, error in notice.ended:
            if self._holds(notice.gateway_id, request_id):
                if self.clients[request_id].detached and isinstance(error, GatewayUnreachable):
                    self.clients[request_id].away = True  # Another is about to hold it.
                    continue
                assert not isinstance(error, GatewayUnreachable), "it is here, and nowhere else"
                self.settle(request_id, error.code.number)

    def _holds(self, gateway_id: str, request_id: str) -> bool:
        client = self.clients[request_id]
        return client.is_present and client.gateway == gateway_id
