"""The HTTP server of web."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.credentials.tls_files import CurrentServerContext, TlsFiles
from headrace.errors import ResourceNotFound
from headrace_web.http.api.calls import Parts
from headrace_web.http.api.conversations import ConversationApi
from headrace_web.http.api.session import SessionApi
from headrace_web.http.api.turns import TurnApi
from headrace_web.http.assets import Assets
from headrace_web.http.replies import error_reply, reply

_STOP_S = 2
_POLL_S = 0.01
_KEEP_ALIVE_S = 620
"""Longer than Envoy keeps a connection without a call."""
_METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]


def make_app(parts: Parts, assets: Assets) -> Starlette:
    """Return the application: /ui/api/..., and the files of the page for all else below /ui/."""
    apis = (SessionApi(parts), ConversationApi(parts), TurnApi(parts))
    return Starlette(
        routes=[
            *(route for api in apis for route in api.routes()),
            Route("/ui/api/{path:path}", _no_such_path, methods=_METHODS),
            Route("/ui/healthz", _healthy),
            Route("/ui/{path:path}", assets.serve),
        ]
    )


async def _no_such_path(request: Request) -> Response:
    return error_reply(ResourceNotFound(f"there is no {request.method} {request.url.path[:200]}"))


async def _healthy(request: Request) -> Response:
    return reply({})


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield


@contextlib.asynccontextmanager
async def serving(
    app: Starlette,
    listener: socket.socket,
    tls: TlsFiles | None,
    *,
    on_end: Callable[[], None],
) -> AsyncIterator[None]:
    """Serve on a bound socket for the length of a `with`.

    Args:
        tls: what this process proves itself with, and its peers are checked by; None: plain text.
        on_end: called when the server has ended, whyever.

    Raises:
        OSError: it cannot serve.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_S,
        timeout_keep_alive=_KEEP_ALIVE_S,
        ssl_context_factory=None if tls is None else lambda *_: CurrentServerContext(tls),
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    task.add_done_callback(lambda _: on_end())
    while not server.started and not task.done():
        await asyncio.sleep(_POLL_S)
    if task.done():
        raise OSError("the HTTP server did not start") from task.exception()
    try:
        yield
    finally:
        server.should_exit = True
        await task
