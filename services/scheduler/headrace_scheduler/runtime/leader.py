"""Runs one leadership: bus messages become events, commands become calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from headrace.bus import Bus, BusUnavailable, LaneReader, PulledMessage
from headrace.bus.subjects import PRIORITIES
from headrace.cancellation import recheck_cancelled
from headrace.clock import Clock
from headrace_scheduler.base import metrics
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_scheduler.machine.state_machine import Machine
from headrace_scheduler.request.live_request import Request
from headrace_scheduler.runtime.acknowledgements import Acknowledgements
from headrace_scheduler.runtime.calls import OutgoingCalls
from headrace_scheduler.runtime.handlers import RequestHandlers, SharedCall
from headrace_scheduler.runtime.lane_reports import report_lanes
from headrace_scheduler.runtime.request_reader import Unreadable, read_request
from headrace_scheduler.runtime.usage_publisher import UsagePublisher
from headrace_scheduler.state.events import (
    Acknowledge,
    BusDown,
    Command,
    Dispatch,
    Event,
    LaneCaughtUp,
    PublishDeadLetter,
    SendNotice,
    StepDown,
    StoreResult,
    Submitted,
)

log = logging.getLogger(__name__)

CATCH_UP_S = 0.1
"""Longest wait of one pull until the lane has been read to its end for the first time."""
PULL_S = 1.0
"""Longest wait of one pull. If the broker dies during it, a new request is read that much later."""
PULLED_AT_ONCE = 64
RETRY_S = 0.2
MAX_SLEEP_S = 0.25
SUSPENDED_S = 1.0
"""Without an event for this long, not even the timer's, the process was suspended and received
no reports."""


class SteppedDown(Exception):
    """This leadership is over."""


class Leader:
    """Owns the machine of one model for one leadership.

    The machine is only touched on the event loop, between two awaits, so it
    needs no lock and an event leads to its dispatch in the same turn of the loop.

    Args:
        may_act: whether this process holds the lease, by its own clock; checked before
            every dispatch and every notice of an end.
    """

    def __init__(
        self,
        machine: Machine,
        bus: Bus,
        settings: SchedulerSettings,
        clock: Clock,
        may_act: Callable[[], bool],
    ) -> None:
        self.machine, self._model = machine, machine.leadership.model
        self._bus, self._settings, self._clock = bus, settings, clock
        self._may_act = may_act
        self._lanes: dict[str, LaneReader] = {}
        self._publisher = UsagePublisher(machine.leadership, bus, clock, may_act)
        self._acknowledgements = Acknowledgements(self._lanes, self._publisher)
        self._calls = OutgoingCalls(
            machine.leadership,
            bus,
            settings,
            handle=self.handle,
            acknowledge=self._acknowledgements.add,
        )
        self._started = False
        self._last_event_s = clock.monotonic_s()
        self._wake = asyncio.Event()
        self._wakes_at_s = 0.0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Lead until cancelled.

        Raises:
            SteppedDown: another process leads, or an event could not be handled.
            BusUnavailable: the lanes could not be taken over.
        """
        async with AsyncExitStack() as stack:
            for priority in PRIORITIES:
                self._lanes[priority] = await self._bus.take_over(self._model, priority)
                stack.push_async_callback(self._lanes[priority].close)
            # Why after: what was read would be of another stream if this one had been lost.
            self._publisher.sources = await self._bus.request_sources()
            lane_ends = SharedCall(self._lane_ends)
            handlers = RequestHandlers(self.machine, self.handle, self._acknowledgements, lane_ends)
            for subject, answer in handlers.by_subject(self._model).items():
                stack.push_async_callback((await self._bus.serve(subject, answer)).close)
            recheck_cancelled()
            async with asyncio.TaskGroup() as tasks:
                self._calls.start_in(tasks)
                self._started = True
                tasks.create_task(self._acknowledgements.run())
                tasks.create_task(self._run_timers())
                reports = report_lanes(self.machine, self._bus, self._settings, self._clock)
                tasks.create_task(reports)
                for priority in PRIORITIES:
                    tasks.create_task(self._pull(priority))
                await self._over

    async def drain(self) -> None:
        """Wait until acknowledgements are confirmed, `drain_s` at most."""
        try:
            async with asyncio.timeout(self._settings.drain_s):
                await self._acknowledgements.all_confirmed()
        except TimeoutError:
            log.warning("leader.unacknowledged", extra={"model": self._model})

    @property
    def has_finished(self) -> bool:
        """Whether no request is live, and every call and acknowledgement is confirmed."""
        return self.machine.is_empty and self._calls.is_idle and not self._acknowledgements

    # Events

    def handle(self, *events: Event) -> bool:
        """Apply events and execute what is decided, at once.

        A fault in this code ends the leadership: the next one builds its state from
        what is stored and reported, without what was broken.

        Returns:
            False, and nothing is done, if this leadership is over.
        """
        if self._over.done():
            return False
        now_s = self._clock.monotonic_s()
        try:
            if now_s - self._last_event_s > SUSPENDED_S or not self._bus.connected:
                self.machine.apply(BusDown(), now_s=now_s)
            self._last_event_s = now_s
            for event in events:
                self.machine.apply(event, now_s=now_s)
            if self._started:
                self._act(now_s)
        except Exception as error:  # the top of every callback
            log.exception("leader.fault", extra={"model": self._model})
            self._step_down(f"a fault: {error!r}")
            return False
        return True

    def _act(self, now_s: float) -> None:
        for command in self.machine.decide(now_s=now_s):
            self._execute(command)
        if self.machine.next_due_s() < self._wakes_at_s:
            self._wake.set()

    def _execute(self, command: Command) -> None:
        match command:
            case Dispatch() | SendNotice() | PublishDeadLetter() | StoreResult() if (
                not self._may_act()
            ):
                # Why: another leader may run what this one, suspended meanwhile, takes for waiting
                # and out of patience. Attempts fence dispatches; ends have no such number.
                self._step_down("the lease may have run out")
            case Acknowledge(unsettled=None):
                # Not a task: nearly all are such.
                self._acknowledgements.add(command)
            case StepDown(reason):
                self._step_down(reason)
            case _:
                self._calls.start(command)

    def _step_down(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_exception(SteppedDown(reason))

    # Tasks

    async def _run_timers(self) -> None:
        """Decide again when something is due."""
        while True:
            now_s = self._clock.monotonic_s()
            sleep_s = min(MAX_SLEEP_S, max(0.0, self.machine.next_due_s() - now_s))
            self._wakes_at_s = now_s + sleep_s
            self._wake.clear()
            try:
                async with asyncio.timeout(sleep_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self.handle()

    async def _pull(self, priority: str) -> None:
        lane, behind = self._lanes[priority], True
        while True:
            try:
                # Why not by an empty pull: it may only be late, and requests that were not read
                # would be taken for unknown.
                if behind and not (behind := await lane.end() > lane.arrived):
                    self.handle(LaneCaughtUp(priority))
                pulled = await lane.pull(
                    max_messages=PULLED_AT_ONCE, timeout_s=CATCH_UP_S if behind else PULL_S
                )
            except BusUnavailable:
                recheck_cancelled()
                metrics.retried.labels("pull").inc()
                await asyncio.sleep(RETRY_S)
                continue
            recheck_cancelled()
            submitted, unreadable = list[Submitted](), list[tuple[PulledMessage, Unreadable]]()
            for message in pulled:
                try:
                    submitted.append(Submitted(self._read(priority, message)))
                except Unreadable as error:
                    unreadable.append((message, error))
            # Why first: from now on these requests are known to be read.
            self.handle(*submitted)
            for message, reason in unreadable:
                await self._store_unreadable(priority, message, reason)

    async def _lane_ends(self) -> list[tuple[LaneReader, int]]:
        """Return every lane, and what its `arrived` is once all that it holds now is read."""
        lanes = list(self._lanes.values())
        return list(zip(lanes, await asyncio.gather(*(lane.end() for lane in lanes)), strict=True))

    def _read(self, priority: str, pulled: PulledMessage) -> Request:
        return read_request(
            pulled,
            model=self._model,
            priority=priority,
            now_s=self._clock.monotonic_s(),
            unix_s=self._clock.unix_s(),
        )

    async def _store_unreadable(
        self, priority: str, pulled: PulledMessage, reason: Unreadable
    ) -> None:
        """Make a message that no leader can ever run a dead letter."""
        log.warning("message.unreadable", extra={"sequence": pulled.sequence, "why": str(reason)})
        await self._calls.store_dead_letter(PublishDeadLetter(pulled.payload, str(reason)))
        key = f"sequence {pulled.sequence}"
        self._acknowledgements.add(Acknowledge(key, priority, pulled.acknowledgement))
