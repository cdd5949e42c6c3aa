"""Serves /metrics, /healthz and /readyz of a process, from a thread of its own.

Why a thread: /healthz must answer 503 while the event loop is stuck. The process runs `beat` on its
event loop, and is unhealthy when `LOOP_STUCK_S` have passed since the last heartbeat.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import Gauge, make_wsgi_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

LOOP_STUCK_S = 10.0
BEAT_S = 1.0

event_loop_tasks = Gauge("headrace_event_loop_tasks", "Tasks of the process's event loop.")


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _ServerOverIPv6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a probe each second is no event."""


def _tasks(loop: asyncio.AbstractEventLoop) -> int:
    return len(asyncio.all_tasks(loop))


class MetricsServer:
    """An HTTP server, bound when it is made. Use it as a context manager.

    Args:
        why_not_ready: the reason that /readyz gives; None if the process is ready.
        details: further lines of /readyz, whether ready or not.

    Both are called from the server's threads and must only read.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        why_not_ready: Callable[[], str | None],
        details: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._why_not_ready = why_not_ready
        self._details = details
        self._metrics = make_wsgi_app()
        self._heartbeat_s = time.monotonic()
        server = _ServerOverIPv6 if ":" in host else _Server
        self._server = make_server(host, port, self._answer, server, _Quiet)
        # Why: `shutdown` takes as long as one poll, and the end of the process waits for it.
        serve = partial(self._server.serve_forever, poll_interval=0.05)
        self._thread = threading.Thread(target=serve, daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_port

    async def beat(self) -> None:
        """Record again and again that the event loop runs, until cancelled."""
        # Why counted when scraped: a count of the last heartbeat would miss what came since.
        event_loop_tasks.set_function(partial(_tasks, asyncio.get_running_loop()))
        while True:
            self._heartbeat_s = time.monotonic()
            await asyncio.sleep(BEAT_S)

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(
        self, environment: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        details: Iterable[str] = ()
        match environment["PATH_INFO"]:
            case "/metrics":
                body: Iterable[bytes] = self._metrics(environment, start_response)
                return body
            case "/healthz":
                stuck = time.monotonic() - self._heartbeat_s >= LOOP_STUCK_S
                why = "its event loop is stuck" if stuck else None
            case "/readyz":
                why = self._why_not_ready()
                details = self._details()
            case _:
                start_response("404 Not Found", [("content-type", "text/plain")])
                return [b"try /metrics, /healthz or /readyz\n"]
        status = "200 OK" if why is None else "503 Service Unavailable"
        start_response(status, [("content-type", "text/plain; charset=utf-8")])
        return ["".join(f"{line}\n" for line in (why or "ok", *details)).encode()]
