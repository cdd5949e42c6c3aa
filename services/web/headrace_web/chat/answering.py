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
from headrace.errors import (
    CapacityError,
    GatewayUnreachable,
    HeadraceError,
    RequestError,
    RequestExists,
    RequestNotFound,
)
from headrace.internal.v1.rows_pb2 import RowCaller
from headrace.v1.requests_pb2 import REQUEST_STATE_ENDED
from headrace_web.base.records import Turn, TurnState
from headrace_web.chat.branches import by_id, path_to
from headrace_web.chat.outcomes import cancelled, ended, failed
from headrace_web.chat.requests import generate_request
from headrace_web.mesh.requests import MeshRequests
from headrace_web.store import Store

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_LOOK_S = 30.0


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
        looking = asyncio.create_task(self._look_for_open())
        try:
            yield
        finally:
            tasks = [looking, *self._following.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def follow(self, turn: Turn) -> None:
        """Follow an open answer to its end."""
        if turn.turn_id not in self._following:
            task = asyncio.create_task(self._follow(turn))
            self._following[turn.turn_id] = task
            task.add_done_callback(lambda _: self._following.pop(turn.turn_id, None))

    @property
    def followed(self) -> frozenset[str]:
        """Ids of the turns that are being followed."""
        return frozenset(self._following)

    async def cancel(self, turn: Turn) -> None:
        """End an answer; it keeps the text so far.

        Raises:
            HeadraceError: the mesh cannot be reached now.
        """
        assert turn.answer is not None
        try:
            request = await self._mesh.cancel(turn.answer.request_id, _caller(turn))
        except RequestNotFound:
            # The mesh does not have it yet; whoever follows the turn does not begin it any more.
            await self._store.turns.end(cancelled(turn))
            return
        except GatewayUnreachable:
            if turn.state is not TurnState.PENDING:
                raise
            await self._store.turns.end(cancelled(turn))
            return
        if request.state == REQUEST_STATE_ENDED:
            await self._store.turns.end(ended(turn, request))

    async def _look_for_open(self) -> None:
        """Follow all that is open, again and again: what another process has left too."""
        while True:
            try:
                for turn in await self._store.turns.open_answers():
                    self.follow(turn)
            except HeadraceError as error:
                log.warning("turns.not_read", extra={"error": str(error)})
            await asyncio.sleep(_LOOK_S)

    async def _follow(self, turn: Turn) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            began_s = self._clock.monotonic_s()
            try:
                if await self._step(turn):
                    return
                pause_s = _FIRST_PAUSE_S
                if self._clock.monotonic_s() - began_s > 1:
                    continue
            except CapacityError as error:
                pause_s = max(pause_s, min(error.retry_after_s or 0, _LONGEST_PAUSE_S))
            except Exception:
                # Why not its end: the next step may go well, and the page waits for it.
                log.exception("turn.step_failed", extra={"turn": turn.turn_id})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _step(self, turn: Turn) -> bool:
        """Bring an answer nearer to its end; return whether it has ended."""
        assert turn.answer is not None
        turns, state = self._store.turns, await self._store.turns.state(turn.turn_id)
        if state is None or not state.is_open:
            return True
        try:
            if state is TurnState.PENDING and not await self._begun(turn):
                return False
            request = await self._mesh.wait(turn.answer.request_id, _caller(turn))
        except RequestError as error:
            await turns.end(failed(turn, error))
            return True
        if request.state != REQUEST_STATE_ENDED:
            return False
        await turns.end(ended(turn, request))
        return True

    async def _begun(self, turn: Turn) -> bool:
        """Have the mesh begin an answer; return whether it is still to be waited for.

        Raises:
            RequestError: the mesh refuses it.
            CapacityError: it cannot be begun now.
        """
        assert turn.answer is not None
        conversation, turns = await self._store.turns.around(turn)
        path = path_to(by_id(turns), turn.parent)
        try:
            await self._mesh.begin(generate_request(conversation, path, turn), _caller(turn))
        except RequestExists:
            # The id is ours alone: it was begun before, when the system prompt was another one.
            pass
        except CapacityError as error:
            if self._clock.unix_s() - turn.create_ms / 1000 <= self._patience_s:
                raise
            await self._store.turns.end(failed(turn, error))
            return False
        if not await self._store.turns.started(turn.turn_id):
            # Stopped meanwhile.
            await self._mesh.cancel(turn.answer.request_id, _caller(turn))
            return False
        return True


def _caller(turn: Turn) -> RowCaller:
    assert turn.answer is not None
    return ParseDict(dict(turn.answer.caller), RowCaller())
