"""Requests whose gateway is gone: kept until another gateway takes them over.

An orphan holds its record and its output so far, here; no slot and no place in a lane. The
client of a stream connects to another gateway, which requests it. A detached request has no
client that could: it is assigned to a living gateway, one after another until one accepts it.
For example, with gateway_silence_s 5, orphan_grace_s 30, and stream a (attempt 7 on worker w):

     0.0 s  last report of gateway g
     5.1 s  g is silent: a is orphaned until 35.1 s; ParkOnWorker(w, a, 7, orphaned)
     5.2 s  w parks a: Parked with 12 tokens of output; a can move
     8.0 s  a's client connects to gateway h, whose TakeOverRequested assigns it to h: a is lost,
            held by h since attempt 8; g is notified, in case it was only suspended
     8.1 s  h reports its resume point, the 12 tokens that it was given: a waits at its old place
            in the lane, and attempt 9 continues from there; of the 12, h sends its client those
            that it lacks
    35.1 s  if no client had come: a is abandoned, and w is not requested again

A detached request that an operator resends names no gateway: it begins as an orphan.

What gateways report of an attempt before the one since which another holds it, is ignored.
Whatever ends a detached request here is stored as its result.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.bus.subjects import ANY_GATEWAY
from headrace.errors import BrokerUnavailable, GatewayUnreachable, HeadraceError
from headrace.internal.v1.reports_pb2 import (
    GatewayReport,
    LocateRequest,
    ParkRequest,
    ResumePoint,
    TakenOver,
)
from headrace_scheduler.machine.gateways import GatewayAddress, Gateways
from headrace_scheduler.request.live_request import (
    Ending,
    Lost,
    Orphaned,
    Request,
    Running,
    Waiting,
)
from headrace_scheduler.state.events import ParkOnWorker, SendNotice
from headrace_scheduler.state.live import LiveRequests

PARK_S = 1.0
"""How long a worker's output of an orphan is awaited; without it, it is generated again."""
NEVER = float("inf")
ENDS_PER_NOTICE = 256

_MOVED = GatewayUnreachable("another gateway has taken it over")

Resume = Callable[[Request, ResumePoint], None]
"""Continues a request from its gateway's resume point."""

_GivenUp = tuple[Request, HeadraceError, str]
"""A request, the error that its client gets if it is still connected, and the cause."""


class Orphans:
    def __init__(self, live: LiveRequests, gateways: Gateways) -> None:
        self._live, self._gateways, self._settings = live, gateways, live.settings
        self._announced: dict[str, tuple[str, TakenOver]] | None = {}
        """By request id, the latest take-over under an earlier leader that was reported before
        the record was read. None once all are read: then reports are about other models."""

    # Gateways that leave, and those that take over

    def gateway_gone(self, gateway_id: str, cause: str, *, now_s: float) -> None:
        """Orphan the requests of a gateway, and give up those that cannot be kept."""
        self._gateways.remove(gateway_id)
        given_up: list[_GivenUp] = []
        for request in self._live.of_gateway(gateway_id):
            if isinstance(request.state, Orphaned):
                continue
            if (why := self._why_not_orphaned(request, cause)) is None:
                self._orphan(request, cause, now_s=now_s)
            else:
                ended = request.state.error if isinstance(request.state, Ending) else None
                given_up.append((request, ended or cut_off_error(why), why))
        for first in range(0, len(given_up), ENDS_PER_NOTICE):
            self._give_up(gateway_id, given_up[first : first + ENDS_PER_NOTICE])

    def _why_not_orphaned(self, request: Request, cause: str) -> str | None:
        """Return why it is given up; None if it is kept, also where its worker has ended it."""
        can_continue = request.record.attachable or request.record.detached
        if not can_continue or isinstance(request.state, Ending):
            return cause
        is_full = self._live.orphaned >= self._settings.max_orphans
        return "too many orphans" if is_full else None

    def _orphan(self, request: Request, cause: str, *, now_s: float) -> None:
        worker_id = request.worker_id
        if worker_id is None and isinstance(request.state, Running):
            worker_id = request.state.worker_id  # It has vanished from reports a moment ago.
        until_s = NEVER if request.record.detached else now_s + self._settings.orphan_grace_s
        state = Orphaned(until_s, worker_id, now_s + PARK_S, request.gateway_id)
        self._live.orphan(request, state, cause)
        if worker_id is not None:
            attempt = request.record.attempt
            self._live.command(ParkOnWorker(worker_id, request.request_id, attempt, orphaned=True))

    def give_up(self, request: Request, error: HeadraceError, cause: str) -> None:
        """End an orphan: its result is stored if it is detached, else it is abandoned."""
        self._give_up(request.gateway_id, [(request, error, cause)])

    def _give_up(self, gateway_id: str, given_up: list[_GivenUp]) -> None:
        # Why a notice: a gateway that was only suspended goes on, and its clients still wait.
        ends = tuple((request.request_id, error) for request, error, _ in given_up)
        self._live.command(SendNotice(gateway_id, ends, ()))
        for request, error, cause in given_up:
            if request.record.detached:
                self._live.end_with_stored_result(request, error)
            else:
                self._live.abandon(request, error, cause)

    def on_end_unknown(self, request: Request, error: HeadraceError) -> None:
        """Remove an ending request that its gateway does not hold."""
        if request.record.detached:
            self._live.end_with_stored_result(request, error)
        else:
            self._live.end_unread(request, error)

    def apply_report(self, gateway_id: str, report: GatewayReport, *, now_s: float) -> None:
        """Apply a gateway's report: it lives, perhaps again, and has taken over requests."""
        if report.draining:
            self._move_away(gateway_id, now_s=now_s)
        else:
            self._return_to(gateway_id, now_s=now_s)
        for taken in report.taken_over:
            request = self._live.get(taken.request_id)
            if request is not None:
                self._apply_takeover(request, gateway_id, taken, now_s=now_s)
            elif self._announced is not None:
                self._announced[taken.request_id] = gateway_id, taken

    def _return_to(self, gateway_id: str, *, now_s: float) -> None:
        """Return its orphans to a gateway that was silent: no other gateway has taken them."""
        for orphan in self._live.orphans():
            if isinstance(orphan.state, Orphaned) and orphan.state.gateway_id == gateway_id:
                where = orphan.worker_id
                self._live.lose(orphan, "its gateway is back", now_s=now_s, worker_id=where)

    def _move_away(self, gateway_id: str, *, now_s: float) -> None:
        """Orphan the detached requests of a gateway that drains, if another could take them."""
        if self._gateways.pick(other_than=gateway_id) is None:
            return
        for request in self._live.of_gateway(gateway_id):
            moves = request.record.detached and not isinstance(request.state, Orphaned)
            if moves and self._why_not_orphaned(request, "") is None:
                self._orphan(request, "gateway leaves", now_s=now_s)

    def sweep(self, *, now_s: float) -> None:
        """Drop silent gateways, and assign detached orphans to living ones."""
        for gateway_id in self._gateways.silent_since(now_s - self._settings.gateway_silence_s):
            self.gateway_gone(gateway_id, "gateway fell silent", now_s=now_s)
        for request in self._live.orphans():
            state = request.state
            if not (request.record.detached and isinstance(state, Orphaned)):
                continue
            if state.can_move(now_s) and now_s >= state.assignable_from_s:
                address = self._gateways.pick(other_than=state.gateway_id)
                if address is not None:
                    self._reassign(request, address, "assigned", now_s=now_s).sends_record = True

    def on_submitted(self, request: Request, *, now_s: float) -> None:
        """Apply a take-over that was reported before the record, which names the publisher; orphan
        a request that no gateway has published, so that one is assigned to it at once."""
        if announced := (self._announced or {}).pop(request.request_id, None):
            self._apply_takeover(request, *announced, now_s=now_s)
        # Why not while older records are read: a gateway may hold it, and report that only later.
        elif self._announced is None and request.gateway_id == ANY_GATEWAY:
            self._orphan(request, "no gateway has it yet", now_s=now_s)

    def forget_announced(self) -> None:
        """Keep no more reports of unknown requests: all older records are read."""
        self._announced = None

    def _apply_takeover(
        self, request: Request, gateway_id: str, taken: TakenOver, *, now_s: float
    ) -> None:
        since = taken.held_since_attempt
        if since <= request.record.held_since_attempt:
            return
        # Why before: what waits or runs for its former gateway is unknown to this one.
        goes_on = _goes_on(request, since)
        where = None if isinstance(request.state, Orphaned) else request.worker_id
        self._live.reassign(request, gateway_id, taken.delivery_address, since=since)
        if not goes_on:
            self._live.lose(request, "taken over", now_s=now_s, worker_id=where)

    # Take-overs that gateways request

    def take_over(self, message: LocateRequest, resume: Resume, *, now_s: float) -> None:
        """Assign a request to the gateway that requests it, if its state allows that."""
        request = self._live.get(message.request_id)
        if request is None:
            return
        is_holder = request.gateway_id == message.gateway_id
        match request.state:
            case Orphaned() as orphaned:
                if orphaned.can_move(now_s):
                    address = GatewayAddress(message.gateway_id, message.delivery_address)
                    lost = self._reassign(request, address, "taken over", now_s=now_s)
                    self._await_point(lost, now_s)
            case Lost() as lost if is_holder:
                if message.HasField("point") and message.point.attempt >= lost.attempt:
                    resume(request, message.point)
            case Running() | Waiting() if is_holder and not message.HasField("point"):
                # It was resumed, and the answer was lost: that gateway holds nothing of it.
                where = request.worker_id
                lost = self._live.lose(request, "requested again", now_s=now_s, worker_id=where)
                self._await_point(lost, now_s)
            case _:
                if message.unreachable_gateway_id == request.gateway_id:
                    self._gateways.suspect(request.gateway_id)

    def _reassign(
        self, request: Request, address: GatewayAddress, cause: str, *, now_s: float
    ) -> Lost:
        attempt = self._live.next_attempt(request)
        where = request.worker_id
        if address.gateway_id != request.gateway_id:
            # Why once: if it is gone, it never reads this; if it was suspended, it reads it first.
            self._live.command(SendNotice(request.gateway_id, ((request.request_id, _MOVED),), ()))
        self._live.reassign(request, *address, since=attempt)
        self._gateways.add_named(address.gateway_id, now_s=now_s)
        return self._live.lose(request, cause, now_s=now_s, worker_id=where)

    def _await_point(self, lost: Lost, now_s: float) -> None:
        """Delay the fence: the gateway sends its resume point unasked, unless that gets lost."""
        lost.notice_due_s = now_s + self._settings.notice_repeat_s

    def on_request_unknown(self, request: Request, *, now_s: float) -> None:
        """Orphan a lost request that its gateway does not hold, or give it up."""
        if request.record.detached:
            self._on_detached_unknown(request, now_s=now_s)
            return
        until_s = request.orphaned_until_s
        if until_s == float("-inf"):  # It was taken over under an earlier leader.
            until_s = now_s + self._settings.orphan_grace_s
        if request.record.held_since_attempt and now_s < until_s:
            self._live.orphan(request, Orphaned(until_s, None, now_s), "left before it resumed")
        else:
            cause = "unknown to its gateway"
            self._live.abandon(request, cut_off_error(cause), cause)

    def _on_detached_unknown(self, request: Request, *, now_s: float) -> None:
        if (why := self._why_not_orphaned(request, "")) is not None:
            self._live.end_with_stored_result(request, cut_off_error(why))
            return
        assignable_from_s = now_s + self._settings.notice_repeat_s
        state = Orphaned(NEVER, None, now_s, assignable_from_s=assignable_from_s)
        self._live.orphan(request, state, "its gateway did not accept it")

    # Workers

    def on_parked(self, parked: ParkRequest) -> None:
        """Add what a worker generated of orphans that it parked."""
        for point in parked.points:
            request = self._live.get(point.request_id)
            if request is None or not isinstance(request.state, Orphaned):
                continue
            if request.state.worker_id == parked.worker_id:
                request.merge_progress(point.progress)
                request.state.worker_id = None


def _goes_on(request: Request, since: int) -> bool:
    """Return whether a request stays as it is with a gateway that holds it since an attempt."""
    match request.state:
        case Running() as running:
            # Adopted, and of an attempt that was dispatched for that gateway.
            return running.attempt >= since and running.dispatch == (0, 0)
        case Orphaned() | Waiting():
            return False
    return True


def cut_off_error(cause: str) -> HeadraceError:
    """Return the error for clients of a gateway that was only suspended."""
    # Why not GatewayUnreachable: at that, clients connect to another gateway for the rest.
    return BrokerUnavailable(f"its gateway was cut off, and it was given up: {cause}")
