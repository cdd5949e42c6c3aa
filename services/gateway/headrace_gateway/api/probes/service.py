"""ProbeService: health, version and the OpenAPI document."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from importlib import metadata

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from headrace.auth.caller import Caller
from headrace.auth.check.interceptor import current_caller
from headrace.v1.probes_pb2_grpc import ProbeServiceServicer
from headrace_gateway.api.http.reply import JSON
from headrace_gateway.api.probes.health import Health
from headrace_gateway.base.calls import Context

_VERSION = json.dumps({"version": metadata.version("headrace")}).encode()


class ProbeService(ProbeServiceServicer):
    def __init__(
        self,
        observe: Callable[[], Health],
        open_api: Callable[[], bytes],
        may_use: Callable[[str, Caller], bool],
    ) -> None:
        """
        Args:
            observe: returns the health of the gateway now.
            open_api: returns the document; called once, by another thread, as it takes a while.
            may_use: whether a caller may use a model, and so may see it.
        """
        self._observe, self._open_api, self._may_use = observe, open_api, may_use
        self._document: asyncio.Task[bytes] | None = None

    async def GetHealth(self, request: Empty, context: Context) -> HttpBody:
        health, caller = self._observe(), current_caller()
        await _head(context, health.not_serving)
        body = health.body(lambda model: self._may_use(model, caller))
        return HttpBody(content_type=JSON, data=body)

    async def Ping(self, request: Empty, context: Context) -> HttpBody:
        await _head(context, self._observe().problem)
        return HttpBody(content_type="text/plain")

    async def GetVersion(self, request: Empty, context: Context) -> HttpBody:
        return HttpBody(content_type=JSON, data=_VERSION)

    async def GetOpenApi(self, request: Empty, context: Context) -> HttpBody:
        # Why not at the start: the gateway would be ready later for what few clients request.
        # Why one task: calls that come together would each keep a thread busy for seconds.
        if self._document is None or _has_failed(self._document):
            self._document = asyncio.create_task(asyncio.to_thread(self._open_api))
        return HttpBody(content_type=JSON, data=await asyncio.shield(self._document))


def _has_failed(task: asyncio.Task[bytes]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _head(context: Context, problem: str | None) -> None:
    status = () if problem is None else (("x-hr-status", "503"),)
    await context.send_initial_metadata((("cache-control", "no-store"), *status))
