"""Liveness probes: whether a process does its work, tried by having it do some.

The probe of a broker whose disk fills up, once a second:

    /healthz 200, a message is stored        None: no fault
    the disk is full, nats-server refuses    Fault("cannot store: no space left on device: …",
                                             replace_after_s=None): another run would refuse too
                                             -> BrokerReport(fault="no space left on device")
    files are deleted, nats-server keeps     Fault("cannot store: …", replace_after_s=3.0)
    its error all the same                   -> replaced after 3 s
    the new run stores                       None -> BrokerReport(fault=""), once
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from headrace.bus import Bus, BusError, BusUnavailable, StoreRefused, connect, subjects
from headrace.internal.v1.reports_pb2 import BrokerReport
from headrace.supervisor.health import error_text
from headrace.supervisor.plan.mesh_options import LOOPBACK
from headrace.supervisor.plan.replacement import Fault
from headrace.supervisor.state.disk import disk_problem

OpenBus = Callable[..., Awaitable[Bus]]
PROBE_TIMEOUT_S = 2.0
_BROKEN_S = 3.0
"""A broker that cannot store on a disk that can is replaced after this time: nats-server keeps such
an error until it is started again."""


class Probe(ABC):
    """Finds out whether one process does its work.

    Args:
        silence_s: how long it may stay without an answer; None: for ever.
    """

    def __init__(self, silence_s: float | None) -> None:
        # Why four times as long: it may wait 30 s for its broker, or recover a large store.
        self.not_listening = Fault("listens nowhere", None if silence_s is None else 4 * silence_s)
        """The fault of a process that does not listen yet."""
        self._silence_s = silence_s
        self._http = httpx.AsyncClient(trust_env=False, timeout=PROBE_TIMEOUT_S)

    @abstractmethod
    async def check(self, ports: dict[str, int]) -> Fault | None:
        """Return the fault of a process that listens; None if it has none."""

    async def close(self) -> None:
        await self._http.aclose()


class HttpProbe(Probe):
    """A GET that must be answered within `PROBE_TIMEOUT_S`.

    Why not /readyz: another run does not help a process that waits for others or for its model.

    Args:
        port: name of the port.
        must_be_ok: whether only the status 200 is good.
    """

    def __init__(self, port: str, path: str, *, silence_s: float | None, must_be_ok: bool) -> None:
        super().__init__(silence_s)
        self._port, self._path, self._must_be_ok = port, path, must_be_ok

    async def check(self, ports: dict[str, int]) -> Fault | None:
        try:
            answer = await self._http.get(f"http://{LOOPBACK}:{ports[self._port]}{self._path}")
        except httpx.HTTPError:
            return Fault(f"does not answer {self._path}", self._silence_s)
        if answer.status_code == httpx.codes.OK or not self._must_be_ok:
            return None
        return Fault(error_text(answer), self._silence_s)


class BrokerProbe(Probe):
    """The broker's health endpoint, and a message that must be stored.

    Faults are also published to all that are connected, because nats-server does not answer a
    publisher when it cannot store.

    Args:
        folder: of the broker's store.
        open_bus: called as `connect` of the bus.
    """

    def __init__(
        self, folder: Path, *, silence_s: float | None, open_bus: OpenBus = connect
    ) -> None:
        super().__init__(silence_s)
        self._folder = folder
        self._open_bus = open_bus
        self._bus: Bus | None = None
        self._has_reported = False

    async def check(self, ports: dict[str, int]) -> Fault | None:
        if self._bus is None:
            # Why first: a broker that cannot store still passes on the report of that.
            with contextlib.suppress(BusUnavailable):
                url = f"nats://{LOOPBACK}:{ports['nats']}"
                self._bus = await self._open_bus(
                    url, name="supervisor", wait_s=PROBE_TIMEOUT_S, replicas=None
                )
        fault = await self._find_fault(ports)
        await self._report(fault)
        return fault

    async def close(self) -> None:
        await super().close()
        if self._bus is not None:
            await self._bus.close()

    async def _find_fault(self, ports: dict[str, int]) -> Fault | None:
        try:
            answer = await self._http.get(f"http://{LOOPBACK}:{ports['http']}/healthz")
        except httpx.HTTPError:
            return Fault("does not answer /healthz", self._silence_s)
        if answer.status_code != httpx.codes.OK:
            return await self._disk_or(error_text(answer), _BROKEN_S)
        if self._bus is None:
            return Fault("takes no connection", self._silence_s)
        try:
            await self._bus.probe_store(timeout_s=PROBE_TIMEOUT_S)
        except StoreRefused as error:
            return Fault(f"cannot store: {error}", None, str(error))
        except BusUnavailable as error:
            return await self._disk_or(str(error), self._silence_s)
        return None

    async def _disk_or(self, error: str, replace_after_s: float | None) -> Fault:
        """Return the disk's fault if it has one, which another run would have too; else `error`."""
        problem = await asyncio.to_thread(disk_problem, self._folder)
        if problem is not None:
            return Fault(f"cannot store: {problem}", None, problem.reason)
        return Fault(f"cannot store: {error}", replace_after_s, error.rpartition(": ")[2])

    async def _report(self, fault: Fault | None) -> None:
        """Publish a fault each time, and its end once."""
        if self._bus is None or (fault is None and not self._has_reported):
            return
        text = "" if fault is None else fault.reason or fault.fact
        with contextlib.suppress(BusError):
            report = BrokerReport(fault=text).SerializeToString()
            await self._bus.publish(subjects.BROKER_REPORTS, report)
            self._has_reported = fault is not None
