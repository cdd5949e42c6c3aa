"""/ui/api/conversations/{id}/turns and /ui/api/turns."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.auth.caller import Caller
from headrace.errors import InvalidRequest
from headrace_web.base.ids import request_id_of
from headrace_web.base.records import Answer, Owner, Turn, TurnState
from headrace_web.chat.requests import sampling_parameters
from headrace_web.http.api.calls import Parts, stored_caller
from headrace_web.http.bodies import Question, read_body
from headrace_web.http.replies import errors_sent, reply
from headrace_web.http.shown import turn_shown
from headrace_web.store.turns import TurnLimits

_MAX_SEED = 2**64 - 1


class TurnApi:
    def __init__(self, parts: Parts) -> None:
        self._parts, self._store = parts, parts.store

    def routes(self) -> list[Route]:
        return [
            Route(
                "/ui/api/conversations/{conversation_id}/turns",
                errors_sent(self.ask),
                methods=["POST"],
            ),
            Route("/ui/api/turns/{turn_id}", errors_sent(self.get), methods=["GET"]),
            Route("/ui/api/turns/{turn_id}/stop", errors_sent(self.stop), methods=["POST"]),
        ]

    async def ask(self, request: Request) -> Response:
        """Store a question and that it is to be answered, then have the mesh answer it.

        The answer's tokens come from `/v2/requests/{request_id}:stream`.
        """
        caller = self._parts.caller(request)
        body = await read_body(request, Question, self._parts.max_body_bytes)
        self._check(body)
        owner = Owner(caller.tenant, caller.actor)
        new = list(_new_turns(request.path_params["conversation_id"], body, caller))
        settings = self._parts.settings
        limits = TurnLimits(
            settings.max_turns, settings.max_conversation_characters, settings.max_open_answers
        )
        stored = await self._store.turns.add(owner, new, limits)
        if stored[-1].state.is_open:
            self._parts.answering.follow(stored[-1])
        return reply({"turns": [turn_shown(turn) for turn in stored]})

    async def get(self, request: Request) -> Response:
        owner, turn_id = self._parts.owner(request), request.path_params["turn_id"]
        return reply(turn_shown(await self._store.turns.get(owner, turn_id)))

    async def stop(self, request: Request) -> Response:
        """End an answer; what has come of it stays."""
        owner, turn_id = self._parts.owner(request), request.path_params["turn_id"]
        turn = await self._store.turns.get(owner, turn_id)
        if turn.state.is_open:
            await self._parts.answering.cancel(turn)
            turn = await self._store.turns.get(owner, turn_id)
        return reply(turn_shown(turn))

    def _check(self, body: Question) -> None:
        sampling_parameters(body.parameters)
        if body.seed is not None and int(body.seed) > _MAX_SEED:
            raise InvalidRequest(f"seed must be at most {_MAX_SEED}", field="seed")
        size, limit = (
            len(body.content.encode(errors="replace")),
            self._parts.settings.max_text_bytes,
        )
        if size > limit:
            fact = f"content has {size} bytes; it may have {limit}"
            raise InvalidRequest(fact, field="content")
        if body.question_id is None and body.content:
            raise InvalidRequest("content needs a question_id", field="question_id")
        if body.question_id is None and body.parent is None:
            raise InvalidRequest("another answer needs the parent that it answers", field="parent")


def _new_turns(conversation_id: str, body: Question, caller: Caller) -> Iterator[Turn]:
    parent = body.parent or ""
    if body.question_id is not None:
        yield Turn(body.question_id, conversation_id, parent, "user", body.content)
        parent = body.question_id
    answer = Answer(
        request_id_of(body.answer_id),
        body.model,
        body.parameters,
        body.seed or str(secrets.randbits(64)),
        stored_caller(caller),
    )
    yield Turn(
        body.answer_id,
        conversation_id,
        parent,
        "assistant",
        state=TurnState.PENDING,
        answer=answer,
    )
