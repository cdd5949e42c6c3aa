"""The worker process: loads a model, serves it until a signal, reloads it at SIGHUP."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import time
from functools import partial

from headrace.bus import Bus, BusUnavailable
from headrace.bus.control import serve_drain
from headrace.bus.jetstream import connect
from headrace.settings import read, write_ports
from headrace.telemetry import logs
from headrace.telemetry.certificate_expiry import export_expiry
from headrace.telemetry.metrics_server import MetricsServer
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.base.loaded_model import LoadedModel, ModelLoadFailed, ModelUnreachable
from headrace_worker.runtime.dedicated_thread import run_in_dedicated_thread
from headrace_worker.serving.load_progress import LoadProgress
from headrace_worker.serving.model_server import ModelServer
from headrace_worker.serving.models import follow, is_follower, load_model
from headrace_worker.serving.reloader import Load, Reloader, Reread

log = logging.getLogger(__name__)


class WorkerApp:
    """What a worker process does from its first loaded model to its end.

    Args:
        reread: the settings as they are now, for a reload. Raises InvalidSettings.
        load: raises ModelLoadFailed.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        bus: Bus,
        loaded: LoadedModel,
        *,
        reread: Reread,
        load: Load,
    ) -> None:
        self._settings, self._bus = settings, bus
        self._first: LoadedModel | None = loaded
        self._stop = asyncio.Event()
        self._death: BaseException | None = None
        self.reloader = Reloader(settings, reread=reread, load=load)
        self._is_ready = False

    @property
    def why_not_ready(self) -> str | None:
        """None if it serves. Thread-safe."""
        if not self._is_ready:
            return "draining" if self._stop.is_set() else "announcing its model"
        if not self._bus.connected:
            return "out of reach of NATS"
        return self.reloader.servers[-1].watchdog.stall or None

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then drain. SIGHUP reloads.

        Returns:
            0, or 1 if the engine died or its model could not be announced.
        """
        self._listen_to_signals()
        async with asyncio.TaskGroup() as group:
            try:
                reloads = await self._begin(group)
            except BusUnavailable as error:
                log.critical("worker.not_announced", extra={"why": str(error)})
                return 1
            self._is_ready = True
            await serve_drain(self._bus, self._settings.name, self.drain)
            await self._stop.wait()
            self._is_ready = False
            reloads.cancel()
            for serving in self.reloader.servers:
                group.create_task(self._end(serving))
        return 0 if self._death is None else 1

    async def _begin(self, group: asyncio.TaskGroup) -> asyncio.Task[None]:
        """Serve the first model. Why not in `run`: its frame would keep the model alive."""

        def make(settings: WorkerSettings, loaded: LoadedModel) -> ModelServer:
            return ModelServer(settings, self._bus, loaded, group=group, on_death=self._die)

        assert self._first is not None, "run once"
        first, self._first = make(self._settings, self._first), None
        await first.begin()
        self.reloader.servers.append(first)
        return group.create_task(self.reloader.run(make))

    async def _end(self, serving: ModelServer) -> None:
        await serving.drain(within_s=self._settings.drain_s)
        await serving.leave()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reloader.request)

    def stop(self) -> None:
        """Let `run` drain and return; called again, it parks at once what still runs."""
        if self._stop.is_set():
            self._stop_waiting()
        self._stop.set()

    def drain(self, grace_s: float | None) -> None:
        """As `stop`; what still runs is parked after `grace_s`, which a repetition only shortens.

        None: after `drain_s` of the settings, which is the most.
        """
        self._stop.set()
        if grace_s is not None:
            asyncio.get_running_loop().call_later(grace_s, self._stop_waiting)

    def _stop_waiting(self) -> None:
        for serving in self.reloader.servers:
            serving.stop_waiting()

    def _die(self, error: BaseException) -> None:
        self._death = error
        self._stop.set()


class WorkerProcess:
    """The process around the app: its readiness and exit status, also while a model loads."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._progress: LoadProgress | None = None
        self._app: WorkerApp | None = None

    def why_not_ready(self) -> str | None:
        """Return the reason for /readyz. Thread-safe."""
        if self._app is not None:
            return self._app.why_not_ready
        return "starting" if self._progress is None else self._progress.fact

    async def live(self) -> int:
        """Load and serve a model; return the exit status."""
        try:
            bus = await connect(
                self._settings.nats_url,
                name=f"worker {self._settings.name}",
                replicas=self._settings.nats_replicas,
                tls=self._settings.tls,
                credentials_file=self._settings.nats_credentials_file,
            )
        except BusUnavailable as error:
            log.critical("worker.not_started", extra={"why": str(error)})
            return 1
        try:
            self._app = await self._first_app(bus)
            return await self._app.run()
        except ModelLoadFailed as error:
            log.critical("worker.not_started", extra={"why": str(error)})
            # Why 2, as for bad settings: starting again does not help.
            return 1 if isinstance(error, ModelUnreachable) else 2
        finally:
            await bus.close()

    async def _first_app(self, bus: Bus) -> WorkerApp:
        loaded = await self._load(self._settings)
        # Why: with torch loaded, a full collection takes 0.4 s, in which nothing steps or reports.
        gc.collect()
        gc.freeze()
        reread = partial(read, WorkerSettings, sys.argv[1:])
        return WorkerApp(self._settings, bus, loaded, reread=reread, load=self._load)

    async def _load(self, settings: WorkerSettings) -> LoadedModel:
        progress = self._progress = LoadProgress(settings.model_source, time.monotonic)
        try:
            loaded = await run_in_dedicated_thread(partial(load_model, settings, progress.report))
        except asyncio.CancelledError:
            progress.abandon()
            raise
        progress.done(loaded.parameters)
        return loaded


async def run(settings: WorkerSettings) -> int:
    """Run a worker process; return its exit status."""
    logs.configure(service="worker", name=settings.name, level=settings.log_level)
    export_expiry(settings.tls)
    if (status := await _follow(settings)) is not None:
        return status
    # Why: until there is something to reload, SIGHUP must not end the process.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: None)
    process = WorkerProcess(settings)
    with MetricsServer(
        settings.host, settings.metrics_port, why_not_ready=process.why_not_ready
    ) as metrics_server:
        write_ports(settings, {"metrics": metrics_server.port})
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(metrics_server.beat())
            status = await process.live()
            beating.cancel()
    return status


async def _follow(settings: WorkerSettings) -> int | None:
    """Compute a part of a model that another process serves; None if this one serves."""
    try:
        if not is_follower(settings):
            return None
        # The one that serves drains first, and ends the others by its own end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await asyncio.to_thread(follow, settings)
    except ModelLoadFailed as error:
        log.critical("worker.not_started", extra={"why": str(error)})
        return 2
    return 0
