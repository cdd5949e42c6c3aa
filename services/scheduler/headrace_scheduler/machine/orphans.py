"""Requests whose gateway is gone: kept a while for a reader who comes to another gateway.

What they hold is their record and their output so far, here; no slot and no place in a
lane. A gateway that asks for one gets it, says from where it is to go on, and it waits
again at its old place. What earlier gateways say of it counts no more, as with attempts.

Detached requests have no reader who could come: they are given to gateways that live, in
turn, until one takes them, and wait for one until their deadline. Whatever ends them here,
where no gateway can, is kept as their result.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.errors import BrokerUnavailable, GatewayUnreachable, HeadraceError
from headrace.internal.v1.reports_pb2 import (
    GatewayReport,
    ParkRequest,
    ResumePoint,
    TakenOver,
    TakeOverRequest,
)
from headrace_scheduler.machine.gateways import GatewayAddress, Gateways
from headrace_scheduler.request.live_request import (
    Ending,
    Lost,
    Orphaned,
    Request,
    Running,
    Waiting,
    first_attempt,
)
from headrace_scheduler.state.events import ParkOnWorker, SendNotice
from headrace_scheduler.state.live import LiveRequests

PARK_S = 1.0
"""How long a worker may take to hand over what an orphan has. It is made again if it does not."""

NEVER = float("inf")
ENDS_PER_NOTICE = 256
"""Ends in one message."""

_MOVED = GatewayUnreachable("another gateway has gone on with it")

Resume = Callable[[Request, ResumePoint], None]
"""The request goes on from where its gateway says that it stands."""

_GivenUp = tuple[Request, HeadraceError, str]
"""With what its caller is told if he is still there, and the cause."""


class Orphans:
    def __init__(self, live: LiveRequests, gateways: Gateways) -> None:
        self._live, self._gateways, self._settings = live, gateways, live.settings
        self._announced: dict[str, tuple[str, TakenOver]] | None = {}
        """Taken over under an earlier leader, by gateways that said so before the record was
        read; of each the latest. None once all are read: then they are of other models."""

    def silent_since(self, received_before_s: float) -> list[str]:
        return self._gateways.silent_since(received_before_s)

    # Gateways that go, and those that come instead

    def gateway_gone(self, gateway_id: str, cause: str, *, now_s: float) -> None:
        self._gateways.remove(gateway_id)
        given_up: list[_GivenUp] = []
        for request in self._live.of_gateway(gateway_id):
            if isinstance(request.state, Orphaned):
                continue
            if (why := self._why_not_orphaned(request, cause)) is None:
                self._orphan(request, cause, now_s=now_s)
            else:
                over = request.state.error if isinstance(request.state, Ending) else None
                given_up.append((request, over or cut_off_error(why), why))
        for first in range(0, len(given_up), ENDS_PER_NOTICE):
            self._give_up(gateway_id, given_up[first : first + ENDS_PER_NOTICE])

    def _why_not_orphaned(self, request: Request, cause: str) -> str | None:
        """None if somebody may come for it, also where it has ended on its worker."""
        may_go_on = request.record.attachable or request.record.detached
        if not may_go_on or isinstance(request.state, Ending):
            return cause
        is_full = self._live.orphaned >= self._settings.max_orphans
        return "too many orphans" if is_full else None

    def _orphan(self, request: Request, cause: str, *, now_s: float) -> None:
        worker_id = request.worker_id or _last_worker(request)
        until_s = NEVER if request.record.detached else now_s + self._settings.orphan_grace_s
        state = Orphaned(until_s, worker_id, now_s + PARK_S, request.gateway_id)
        self._live.orphan(request, state, cause)
        if worker_id is not None:
            self._park(request, worker_id)

    def give_up(self, request: Request, error: HeadraceError, cause: str) -> None:
        """Nobody goes on with it; where somebody may ask for its end, that is kept."""
        self._give_up(request.gateway_id, [(request, error, cause)])

    def _give_up(self, gateway_id: str, given_up: list[_GivenUp]) -> None:
        # Why told: a gateway that was only frozen goes on, and its callers still wait there.
        ends = tuple((request.request_id, error) for request, error, _ in given_up)
        self._live.command(SendNotice(gateway_id, ends, ()))
        for request, error, cause in given_up:
            if request.record.detached:
                self._live.end_with_stored_result(request, error)
            else:
                self._live.abandon(request, cause)

    def on_end_unknown(self, request: Request, error: HeadraceError) -> None:
        """It has ended, and its gateway does not hold it."""
        if request.record.detached:
            self._live.end_with_stored_result(request, error)
        else:
            self._live.settle(request, error.code.number)

    def apply_report(self, gateway_id: str, report: GatewayReport, *, now_s: float) -> None:
        """It lives, after a pause perhaps; and what it has taken over, perhaps under an earlier
        leader."""
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
        for orphan in self._live.orphans():
            if isinstance(orphan.state, Orphaned) and orphan.state.gateway_id == gateway_id:
                # Nobody has come elsewhere: its reader may still be where it was.
                where = orphan.worker_id
                self._live.lose(orphan, "its gateway is back", now_s=now_s, worker_id=where)

    def _move_away(self, gateway_id: str, *, now_s: float) -> None:
        """It is about to leave: what no reader keeps there goes elsewhere, if there is a place."""
        if self._gateways.pick(other_than=gateway_id) is None:
            return
        for request in self._live.of_gateway(gateway_id):
            moves = request.record.detached and not isinstance(request.state, Orphaned)
            if moves and self._why_not_orphaned(request, "") is None:
                self._orphan(request, "gateway leaves", now_s=now_s)

    def reassign_ready(self, *, now_s: float) -> None:
        """Detached requests to gateways that live. Call every now and then."""
        for request in self._live.orphans():
            state = request.state
            if not (request.record.detached and isinstance(state, Orphaned)):
                continue
            if state.can_move(now_s) and now_s >= state.assignable_from_s:
                pick = self._gateways.pick(other_than=state.gateway_id)
                if pick is not None:
                    self._reassign(request, pick, "given", now_s=now_s).sends_record = True

    def on_submitted(self, request: Request, *, now_s: float) -> None:
        """Its record names who published it; it may have been taken over since."""
        if announced := (self._announced or {}).pop(request.request_id, None):
            self._apply_takeover(request, *announced, now_s=now_s)

    def forget_announced(self) -> None:
        """Every record from before the take-over is read."""
        self._announced = None

    def _apply_takeover(
        self, request: Request, gateway_id: str, taken: TakenOver, *, now_s: float
    ) -> None:
        if taken.held_since_attempt <= request.record.held_since_attempt:
            return
        was_orphaned = isinstance(request.state, Orphaned)
        self._live.reassign(
            request, gateway_id, taken.delivery_address, since=taken.held_since_attempt
        )
        if was_orphaned:
            self._live.lose(request, "taken over", now_s=now_s)

    # Readers who come

    def take_over(self, asked: TakeOverRequest, resume: Resume, *, now_s: float) -> None:
        """Give it to the gateway that asks, if it can be given; `answer` says what came of it."""
        request = self._live.get(asked.request_id)
        if request is None:
            return
        is_its_own = request.gateway_id == asked.gateway_id
        match request.state:
            case Orphaned() as orphaned:
                if orphaned.can_move(now_s):
                    self._hand_over(request, asked, now_s=now_s)
            case Lost() as lost if is_its_own:
                if asked.HasField("point") and asked.point.attempt >= lost.attempt:
                    resume(request, asked.point)
            case Running() | Waiting() if is_its_own and not asked.HasField("point"):
                # It went on, and the word of that was lost: that gateway holds nothing of it.
                where = request.worker_id
                self._live.lose(request, "asked for again", now_s=now_s, worker_id=where)
                self._await_point(request, now_s)
            case _:
                if asked.unreachable_gateway_id == request.gateway_id:
                    self._gateways.suspect(request.gateway_id)

    def _hand_over(self, request: Request, asked: TakeOverRequest, *, now_s: float) -> None:
        pick = GatewayAddress(asked.gateway_id, asked.delivery_address)
        self._reassign(request, pick, "taken over", now_s=now_s)
        self._await_point(request, now_s)

    def _reassign(
        self, request: Request, pick: GatewayAddress, cause: str, *, now_s: float
    ) -> Lost:
        attempt = max(request.record.attempt, first_attempt(self._live.epoch)) + 1
        where = request.worker_id
        if pick.gateway_id != request.gateway_id:
            # Once is enough: if it is gone, nobody hears it; if it was frozen, it hears it first.
            self._live.command(SendNotice(request.gateway_id, ((request.request_id, _MOVED),), ()))
        self._live.reassign(request, pick.gateway_id, pick.delivery_address, since=attempt)
        self._gateways.add_named(pick.gateway_id, now_s=now_s)
        self._live.lose(request, cause, now_s=now_s, worker_id=where)
        assert isinstance(request.state, Lost)
        return request.state

    def _await_point(self, request: Request, now_s: float) -> None:
        """The gateway says it by itself; if that is lost, it is asked."""
        assert isinstance(request.state, Lost)
        request.state.notice_due_s = now_s + self._settings.notice_repeat_s

    def on_request_unknown(self, request: Request, *, now_s: float) -> None:
        """Its gateway does not hold it: it waits again for another reader, or gateway."""
        if request.record.detached:
            self._on_detached_unknown(request, now_s=now_s)
            return
        until_s = request.orphaned_until_s
        if until_s == float("-inf"):  # This leader knows of no loss: it was taken over before.
            until_s = now_s + self._settings.orphan_grace_s
        if request.record.held_since_attempt and now_s < until_s:
            self._live.orphan(request, Orphaned(until_s, None, now_s), "left before it went on")
        else:
            self._live.abandon(request, "unknown to its gateway")

    def _on_detached_unknown(self, request: Request, *, now_s: float) -> None:
        if (why := self._why_not_orphaned(request, "")) is not None:
            self._live.end_with_stored_result(request, cut_off_error(why))
            return
        assignable_from_s = now_s + self._settings.notice_repeat_s
        state = Orphaned(NEVER, None, now_s, assignable_from_s=assignable_from_s)
        self._live.orphan(request, state, "its gateway did not take it")

    # Workers

    def on_parked(self, parked: ParkRequest) -> None:
        """What orphans have made where they ran."""
        for point in parked.points:
            request = self._live.get(point.request_id)
            if request is None or not isinstance(request.state, Orphaned):
                continue
            if request.state.worker_id == parked.worker_id:
                request.merge_progress(point.progress)
                request.state.worker_id = None

    def _park(self, request: Request, worker_id: str) -> None:
        attempt = request.record.attempt
        self._live.command(
            ParkOnWorker(worker_id, self._live.epoch, request.request_id, attempt, orphaned=True)
        )


def cut_off_error(cause: str) -> HeadraceError:
    """What callers of a gateway are told that was only frozen."""
    # Not GatewayUnreachable: for that, clients come back for the rest.
    return BrokerUnavailable(f"its gateway was cut off, and it was given up: {cause}")


def _last_worker(request: Request) -> str | None:
    match request.state:
        case Running(worker_id=worker_id):
            return worker_id
    return None
