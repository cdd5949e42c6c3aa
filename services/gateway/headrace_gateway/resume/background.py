"""Reads background requests at the gateway that holds them, so that no client has to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from headrace.errors import InternalError
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import RequestOutcome
from headrace_gateway.base import metrics
from headrace_gateway.output.answering import Answer, GenerationFailed
from headrace_gateway.request.generation import Generation
from headrace_gateway.stream.open_request import OpenRequest

log = logging.getLogger(__name__)

AnswerBuilder = Callable[[Generation], Answer]
"""Builds the answer of one reader of a request."""


class BackgroundReaders:
    """One reader of each background request that is open here, from its beginning to its end."""

    def __init__(self, build_answer: AnswerBuilder) -> None:
        self._build_answer = build_answer
        self._tasks: set[asyncio.Task[None]] = set()

    def read(self, open_request: OpenRequest) -> None:
        """Read the request from now on, so that every other reader may leave.

        Raises:
            HeadraceError: its model is not known here.
        """
        answer = self._build_answer(open_request.reader())
        task = asyncio.create_task(_read(answer, open_request))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        metrics.detached_requests.set(len(self._tasks))

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        metrics.detached_requests.set(len(self._tasks))

    async def close(self) -> None:
        """Stop reading. Other gateways continue the requests that are open here."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read(answer: Answer, open_request: OpenRequest) -> None:
    # Why not `async with`: a gateway that stops must not abandon what others will continue.
    try:
        async for _ in answer:
            pass
    except GenerationFailed:
        pass  # Its outcome has the error.
    except Exception:
        log.exception("request.broken", extra={"request_id": open_request.request_id})
        error = InternalError("the gateway failed; its log says how")
        open_request.close(RequestOutcome(usage=answer.usage(), error=to_status(error)))
    await answer.settle()
