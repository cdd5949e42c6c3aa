"""What each kind of process can do at this moment, found out by having it do something."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Protocol

import httpx

from headrace.bus import BusError, BusUnavailable, StoreRefused, subjects
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.internal.v1.reports_pb2 import BrokerReport
from headrace.supervisor.health import error_text
from headrace.supervisor.plan.mesh_options import LOOPBACK
from headrace.supervisor.plan.replacement import Fault
from headrace.supervisor.state.disk import disk_problem

PROBE_S = 2.0
_BROKEN_S = 3.0
"""A broker that says that it cannot store, on a disk that takes writes, is replaced after this
time: its error does not pass by itself, for nats-server keeps it until it is started again."""


class Probe(Protocol):
    """Finds out whether one process does its work."""

    @property
    def silent(self) -> Fault:
        """The fault of a process that listens nowhere yet."""
        ...

    async def look(self, ports: dict[str, int]) -> Fault | None:
        """None: it does."""
        ...

    async def close(self) -> None: ...


def _silent(silence_s: float | None) -> Fault:
    """Until it listens, a process may wait 30 s for its broker, or recover a large store."""
    return Fault("listens nowhere", None if silence_s is None else 4 * silence_s)


class HttpProbe:
    """Any answer of an HTTP address within `PROBE_S` is well, and of some only 200.

    Not /readyz: a process that waits for others, or for its model, is not mended by a new run.
    """

    def __init__(self, port: str, path: str, *, silence_s: float | None, must_be_ok: bool) -> None:
        """`silence_s`: how long it may last; None for ever."""
        self.silent = _silent(silence_s)
        self._port, self._path, self._must_be_ok = port, path, must_be_ok
        self._silence_s = silence_s
        self._http = httpx.AsyncClient(trust_env=False, timeout=PROBE_S)

    async def look(self, ports: dict[str, int]) -> Fault | None:
        try:
            answer = await self._http.get(f"http://{LOOPBACK}:{ports[self._port]}{self._path}")
        except httpx.HTTPError:
            return Fault(f"does not answer {self._path}", self._silence_s)
        if answer.status_code == httpx.codes.OK or not self._must_be_ok:
            return None
        return Fault(error_text(answer), self._silence_s)

    async def close(self) -> None:
        await self._http.aclose()


class BrokerProbe:
    """A broker is well if it says so and stores what it is given. What it lacks is reported to all
    that are connected, for a nats-server that cannot store does not answer who publishes."""

    def __init__(self, folder: Path, *, silence_s: float | None) -> None:
        self.silent = _silent(silence_s)
        self._folder, self._silence_s = folder, silence_s
        self._http = httpx.AsyncClient(trust_env=False, timeout=PROBE_S)
        self._bus: JetStreamBus | None = None
        self._has_reported = False

    async def look(self, ports: dict[str, int]) -> Fault | None:
        if self._bus is None:
            # It may be connected while it cannot store, and then it can be reported.
            with contextlib.suppress(BusUnavailable):
                self._bus = await connect(
                    f"nats://{LOOPBACK}:{ports['nats']}",
                    name="supervisor",
                    wait_s=PROBE_S,
                    replicas=None,
                )
        fault = await self._fault(ports)
        await self._report(fault)
        return fault

    async def close(self) -> None:
        await self._http.aclose()
        if self._bus is not None:
            await self._bus.close()

    async def _fault(self, ports: dict[str, int]) -> Fault | None:
        try:
            answer = await self._http.get(f"http://{LOOPBACK}:{ports['http']}/healthz")
        except httpx.HTTPError:
            return Fault("does not answer /healthz", self._silence_s)
        if answer.status_code != httpx.codes.OK:
            return await self._by_disk(error_text(answer), _BROKEN_S)
        if self._bus is None:
            return Fault("takes no connection", self._silence_s)
        try:
            await self._bus.probe_store(timeout_s=PROBE_S)
        except StoreRefused as error:
            return Fault(f"cannot store: {error}", None, str(error))
        except BusUnavailable as error:
            return await self._by_disk(str(error), self._silence_s)
        return None

    async def _by_disk(self, said: str, replace_after_s: float | None) -> Fault:
        """The disk's fault where it has one: a new run on it would fail as this one."""
        trouble = await asyncio.to_thread(disk_problem, self._folder)
        if trouble is not None:
            return Fault(f"cannot store: {trouble}", None, trouble.reason)
        return Fault(f"cannot store: {said}", replace_after_s, said.rpartition(": ")[2])

    async def _report(self, fault: Fault | None) -> None:
        """While there is something, and once when it is over."""
        if self._bus is None or (fault is None and not self._has_reported):
            return
        text = "" if fault is None else fault.reason or fault.fact
        with contextlib.suppress(BusError):
            report = BrokerReport(fault=text).SerializeToString()
            await self._bus.publish(subjects.BROKER_REPORTS, report)
            self._has_reported = fault is not None
