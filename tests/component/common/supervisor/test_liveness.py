"""Processes that run and do not do their work, with real processes and a real broker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.bus import BusUnavailable
from headrace.bus.jetstream import JetStreamBus, connect
from headrace.supervisor.liveness import LivenessMonitor
from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.plan.program import Program
from headrace.supervisor.probes import BrokerProbe, HttpProbe, Probe
from headrace.supervisor.servers.nats import Broker
from headrace.supervisor.state.files import read_json_object
from headrace.supervisor.state.state_dir import StateDir
from headrace.supervisor.supervised_process import SupervisedProcess
from helpers.eventually import eventually
from helpers.small_disk import SmallDisk, small_disk

SILENCE_S = 1.0
WITHIN_S = 30.0
SERVES = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        word = Path(sys.argv[2]).read_text()
        self.send_response(200 if word == "ok" else 503)
        self.end_headers()
        self.wfile.write(word.encode())
server = HTTPServer(("127.0.0.1", 0), Handler)
Path(sys.argv[1]).write_text(json.dumps({"metrics": server.server_port}))
server.serve_forever()
"""


class Serving:
    """A process that answers with the text of a file; with 503 unless that is "ok"."""

    role = Role.GATEWAY
    name = "serving"

    def __init__(self, folder: Path) -> None:
        self._ports, self.answer = folder / "ports.json", folder / "answer"
        self.answer.write_text("ok")

    def prepare(self) -> None:
        self._ports.unlink(missing_ok=True)

    def argv(self) -> Sequence[str]:
        return (sys.executable, "-c", SERVES, str(self._ports), str(self.answer))

    async def read_ports(self, pid: int) -> dict[str, int] | None:
        return read_json_object(self._ports)


class Monitored:
    """A supervised process with its liveness monitor."""

    def __init__(self, process: SupervisedProcess, reports: list[str]) -> None:
        self.process, self.reports = process, reports

    @property
    def pid(self) -> int:
        assert self.process.record.pid is not None
        return self.process.record.pid

    async def is_replaced(self, pid: int) -> None:
        """Wait until another run listens."""
        await eventually(
            lambda: self.process.listening.is_set() and self.process.record.pid != pid,
            within_s=WITHIN_S,
        )


@asynccontextmanager
async def monitored_process(
    program: Program, probe: Probe, folder: Path
) -> AsyncIterator[Monitored]:
    reports: list[str] = []
    process = SupervisedProcess(
        program,
        StateDir(folder),
        on_change=lambda: None,
        report=lambda name, fact: reports.append(fact),
    )
    process.mesh_is_ready()
    async with asyncio.TaskGroup() as group:
        group.create_task(process.run())
        group.create_task(LivenessMonitor(process, probe, on_probe=lambda: None).run())
        try:
            await eventually(process.listening.is_set, within_s=WITHIN_S)
            yield Monitored(process, reports)
        finally:
            process.kill()


def healthz() -> HttpProbe:
    return HttpProbe("metrics", "/healthz", silence_s=SILENCE_S, must_be_ok=True)


async def test_a_process_that_hangs_is_replaced_and_the_reason_reported(tmp_path: Path) -> None:
    async with monitored_process(Serving(tmp_path), healthz(), tmp_path) as monitored:
        hung = monitored.pid
        os.kill(hung, signal.SIGSTOP)
        await monitored.is_replaced(hung)
        assert (
            monitored.process.record.last_end
            == "was ended: does not answer /healthz, for more than 1 s"
        )
        assert monitored.process.record.restarts == 1
        await eventually(lambda: monitored.reports[-1] == "is healthy again", within_s=WITHIN_S)


async def test_a_process_that_reports_itself_stuck_is_replaced(tmp_path: Path) -> None:
    program = Serving(tmp_path)
    async with monitored_process(program, healthz(), tmp_path) as monitored:
        stuck = monitored.pid
        program.answer.write_text("its event loop is stuck")
        await eventually(lambda: monitored.process.record.fault == "its event loop is stuck")
        await monitored.is_replaced(stuck)
        assert "its event loop is stuck" in monitored.process.record.last_end


async def test_any_answer_is_healthy_where_the_status_does_not_matter(
    tmp_path: Path,
) -> None:
    program = Serving(tmp_path)
    program.answer.write_text("draining")
    probe = HttpProbe("metrics", "/ready", silence_s=0.0, must_be_ok=False)
    async with monitored_process(program, probe, tmp_path) as monitored:
        assert await probe.check(monitored.process.record.ports) is None


async def test_a_frozen_process_is_reported_and_kept_where_no_time_is_set(tmp_path: Path) -> None:
    probe = HttpProbe("metrics", "/healthz", silence_s=None, must_be_ok=True)
    async with monitored_process(Serving(tmp_path), probe, tmp_path) as monitored:
        frozen = monitored.pid
        os.kill(frozen, signal.SIGSTOP)
        await eventually(lambda: monitored.process.record.fault != "", within_s=WITHIN_S)
        os.kill(frozen, signal.SIGCONT)
        await eventually(lambda: monitored.process.record.fault == "", within_s=WITHIN_S)
        assert monitored.pid == frozen
        assert monitored.reports == ["does not answer /healthz", "is healthy again"]


async def test_a_process_whose_files_cannot_be_written_is_started_once_they_can(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        broker = Broker(disk.folder / "nats")
        async with monitored_process(
            broker, BrokerProbe(disk.folder, silence_s=None), disk.folder
        ) as monitored:
            disk.fill()
            os.kill(monitored.pid, signal.SIGKILL)
            await eventually(lambda: monitored.process.record.restarts >= 2, within_s=WITHIN_S)
            disk.free()
            await eventually(monitored.process.listening.is_set, within_s=WITHIN_S)
            assert "cannot be started: no space left on device" in monitored.process.record.last_end


class BrokenBroker:
    """A broker on a disk that can be filled, and a client of it."""

    def __init__(self, monitored: Monitored, disk: SmallDisk, bus: JetStreamBus) -> None:
        self.monitored, self.disk, self.bus = monitored, disk, bus
        self._sent = 0

    async def submit(self) -> None:
        self._sent += 1
        async with asyncio.timeout(1.0):
            await self.bus.submit("m", "standard", bytes(100_000), message_id=f"{self._sent}")

    async def stores(self) -> bool:
        try:
            await self.submit()
        except (BusUnavailable, TimeoutError):
            return False
        return True

    async def break_it(self) -> None:
        """Fill the disk, and wait until the broker's fault has been published."""
        self.disk.fill()
        assert not await self.stores()
        await eventually(lambda: self.bus.fault != "", within_s=WITHIN_S)


@pytest.fixture
async def broken(tmp_path: Path) -> AsyncIterator[BrokenBroker]:
    with small_disk(tmp_path / "disk") as disk:
        broker = Broker(disk.folder / "nats")
        probe = BrokerProbe(disk.folder / "nats", silence_s=WITHIN_S)
        async with monitored_process(broker, probe, disk.folder) as monitored:
            bus = await connect(broker.url, name="test")
            found = BrokenBroker(monitored, disk, bus)
            await found.submit()
            await found.break_it()
            yield found
            await bus.close()


async def test_a_broker_on_a_full_disk_is_not_replaced_and_the_disk_is_reported(
    broken: BrokenBroker,
) -> None:
    assert broken.bus.fault == "no space left on device"
    await eventually(lambda: broken.monitored.process.record.fault != "", within_s=WITHIN_S)
    fault = broken.monitored.process.record.fault
    assert fault.startswith("cannot store: no space left on device: ")
    assert str(broken.disk.folder) in fault
    assert broken.monitored.process.record.restarts == 0


async def test_a_broker_that_stays_broken_after_the_disk_is_free_again_is_replaced(
    broken: BrokenBroker,
) -> None:
    pid = broken.monitored.pid
    broken.disk.free()
    await broken.monitored.is_replaced(pid)
    await eventually(broken.stores, within_s=WITHIN_S)
    await eventually(lambda: broken.bus.fault == "", within_s=WITHIN_S)
    assert "no space left on device" in broken.monitored.process.record.last_end
    assert broken.monitored.process.record.restarts == 1
