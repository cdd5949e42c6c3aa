"""Has the mesh answer what is stored as asked, and stores the answers, whether or not a page waits.

    pending ──begin──► running ──wait──► complete | failed | cancelled

Each step can be repeated: the request's id is made from the turn's, and the first end that is
stored stays. So all of them are taken up again at the start of a process, and several processes may
follow the same turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.protobuf.json_format import ParseDict

from headrace.clock import Clock
from headrace.errors import CapacityError, HeadraceError, RequestNotFound
from headrace.internal.v1.rows_pb2 import RowCaller
from headrace.v1.requests_pb2 import REQUEST_STATE_ENDED
from headrace_web.base.records import Turn, TurnState
from headrace_web.chat.branches import by_id, path_to
from headrace_web.chat.outcomes import ended, failed
from headrace_web.chat.requests import generate_request
from headrace_web.mesh.requests import MeshRequests
from headrace_web.store import Store

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


class Answering:
    def __init__(
        self, store: Store, mesh: MeshRequests, clock: Clock, *, patience_s: float
    ) -> None:
        """`patience_s`: how long a request that the mesh cannot take now is sent again."""
        self._store, self._mesh, self._clock = store, mesh, clock
        self._patience_s = patience_s
        self._following: dict[str, asyncio.Task[None]] = {}
        """By the id of the turn."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow what is open, for the length of a `with`."""
        for turn in await self._store.turns.open_answers():
            self.follow(turn)
        try:
            yield
        finally:
            tasks = list(self._following.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def follow(self, turn: Turn) -> None:
        """Follow an open answer to its end."""
        if turn.turn_id not in self._following:
            task = asyncio.create_task(self._follow(turn))
            self._following[turn.turn_id] = task
            task.add_done_callback(lambda _: self._following.pop(turn.turn_id, None))

    async def cancel(self, turn: Turn) -> None:
        """End an answer; it keeps the text so far.

        Raises:
            HeadraceError: the mesh cannot be reached now.
        """
        assert turn.answer is not None
        try:
            request = await self._mesh.cancel(turn.answer.request_id, _caller(turn))
        except RequestNotFound as error:
            await self._store.turns.end(failed(turn, error))
            return
        if request.state == REQUEST_STATE_ENDED:
            await self._store.turns.end(ended(turn, request))

    async def _follow(self, turn: Turn) -> None:
        assert turn.answer is not None
        pause_s = _FIRST_PAUSE_S
        state = turn.state
        while True:
            try:
                if state is TurnState.PENDING:
                    await self._begin(turn)
                    await self._store.turns.started(turn.turn_id)
                    state = TurnState.RUNNING
                request = await self._mesh.wait(turn.answer.request_id, _caller(turn))
                pause_s = _FIRST_PAUSE_S
                if request.state == REQUEST_STATE_ENDED:
                    await self._store.turns.end(ended(turn, request))
                    return
            except CapacityError as error:
                if state is TurnState.PENDING and self._is_late(turn):
                    await self._store.turns.end(failed(turn, error))
                    return
                await asyncio.sleep(max(pause_s, min(error.retry_after_s or 0, _LONGEST_PAUSE_S)))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except HeadraceError as error:
                await self._store.turns.end(failed(turn, error))
                return

    async def _begin(self, turn: Turn) -> None:
        conversation, turns = await self._store.turns.around(turn)
        path = path_to(by_id(turns), turn.parent)
        await self._mesh.begin(generate_request(conversation, path, turn), _caller(turn))

    def _is_late(self, turn: Turn) -> bool:
        return self._clock.unix_s() - turn.create_ms / 1000 > self._patience_s


def _caller(turn: Turn) -> RowCaller:
    assert turn.answer is not None
    return ParseDict(dict(turn.answer.caller), RowCaller())
