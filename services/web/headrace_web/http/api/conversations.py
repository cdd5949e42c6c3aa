"""/ui/api/conversations."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.errors import InvalidRequest
from headrace_web.base.records import Conversation
from headrace_web.chat.requests import sampling_parameters
from headrace_web.http.api.calls import Parts
from headrace_web.http.bodies import ChangedConversation, NewConversation, read_body
from headrace_web.http.replies import errors_sent, reply
from headrace_web.http.shown import conversation_shown, listed, turn_shown
from headrace_web.store.conversations import ConversationFilter

_PAGE = 100


class ConversationApi:
    def __init__(self, parts: Parts) -> None:
        self._parts, self._store = parts, parts.store

    def routes(self) -> list[Route]:
        one = "/ui/api/conversations/{conversation_id}"
        return [
            Route("/ui/api/conversations", errors_sent(self.list), methods=["GET"]),
            Route("/ui/api/conversations", errors_sent(self.create), methods=["POST"]),
            Route(one, errors_sent(self.get), methods=["GET"]),
            Route(one, errors_sent(self.change), methods=["PATCH"]),
            Route(one, errors_sent(self.delete), methods=["DELETE"]),
            Route(f"{one}/restore", errors_sent(self.restore), methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """Newest first; `q` searches titles and turns, `tag` chooses, `before` goes on."""
        query = request.query_params
        which = ConversationFilter(
            query.get("q", "")[:200], query.get("tag", ""), _before(query.get("before", "")), _PAGE
        )
        found = await self._store.conversations.list(self._parts.owner(request), which)
        last = f"{found[-1].update_ms}.{found[-1].conversation_id}" if len(found) == _PAGE else ""
        shown = [listed(each) for each in found]
        return reply({"conversations": shown, "before": last})

    async def create(self, request: Request) -> Response:
        owner = self._parts.owner(request)
        body = await read_body(request, NewConversation, self._parts.max_body_bytes)
        _check_text(body.system, self._parts.settings.max_text_bytes, field="system")
        sampling_parameters(body.parameters)
        new = Conversation(
            body.conversation_id,
            owner,
            title=body.title,
            system=body.system,
            model=body.model,
            parameters=body.parameters,
            scene=body.scene,
        )
        at_most = self._parts.settings.max_conversations
        made = await self._store.conversations.create(new, at_most=at_most)
        return reply(conversation_shown(made))

    async def get(self, request: Request) -> Response:
        """Return the conversation with all its turns, of every branch."""
        owner, conversation_id = self._parts.owner(request), request.path_params["conversation_id"]
        found = await self._store.conversations.get(owner, conversation_id)
        turns = await self._store.turns.of(owner, conversation_id)
        return reply(conversation_shown(found) | {"turns": [turn_shown(turn) for turn in turns]})

    async def change(self, request: Request) -> Response:
        owner, conversation_id = self._parts.owner(request), request.path_params["conversation_id"]
        body = await read_body(request, ChangedConversation, self._parts.max_body_bytes)
        values: dict[str, Any] = body.model_dump(exclude_none=True)
        _check_text(body.system or "", self._parts.settings.max_text_bytes, field="system")
        sampling_parameters(body.parameters or {})
        if body.leaf is not None:
            turn = await self._store.turns.get(owner, body.leaf)
            if turn.conversation_id != conversation_id:
                raise InvalidRequest("leaf is a turn of another conversation", field="leaf")
        changed = await self._store.conversations.change(owner, conversation_id, values)
        return reply(conversation_shown(changed))

    async def delete(self, request: Request) -> Response:
        owner, conversation_id = self._parts.owner(request), request.path_params["conversation_id"]
        await self._store.conversations.delete(owner, conversation_id)
        return reply({})

    async def restore(self, request: Request) -> Response:
        owner, conversation_id = self._parts.owner(request), request.path_params["conversation_id"]
        return reply(
            conversation_shown(await self._store.conversations.restore(owner, conversation_id))
        )


def _before(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    time, _, conversation_id = text.partition(".")
    if not time.isdecimal() or len(time) > 15:
        raise InvalidRequest("before is not one that this list has given out", field="before")
    return int(time), conversation_id


def _check_text(text: str, max_bytes: int, *, field: str) -> None:
    if (size := len(text.encode(errors="replace"))) > max_bytes:
        raise InvalidRequest(f"{field} has {size} bytes; it may have {max_bytes}", field=field)
