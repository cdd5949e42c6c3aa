"""The paths of OpenAI's Responses and Conversations, which the proto gives, to their calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from headrace.errors import HeadraceError, Unsupported
from headrace.v1.responses_pb2_grpc import ResponsesServiceServicer
from headrace_gateway.api.http.endpoint import HttpCall, http_call, post
from headrace_gateway.api.http.rejection import rejected_by, send_rejection
from headrace_gateway.api.http.services import ApiServicer
from headrace_gateway.api.responses import conversation_calls, create, retrieve
from headrace_gateway.api.responses.delivery import RESPONSE_ERRORS
from headrace_gateway.base.calls import Context


def call(answer: Callable[[HttpCall, Any], Awaitable[None]]) -> Any:
    """Make the gRPC handler of a path whose message `answer` takes."""

    async def handler(self: ApiServicer, request: Any, context: Context) -> None:
        async with http_call(self.services, context, "openai", RESPONSE_ERRORS) as http:
            await answer(http, request.data if isinstance(request, HttpBody) else request)

    async def reject(error: HeadraceError, request: Any, context: Context) -> None:
        await send_rejection(context, "openai", RESPONSE_ERRORS, error)

    return rejected_by(reject, handler)


async def _compact(http: HttpCall, data: bytes) -> None:
    raise Unsupported(
        "responses are not compacted here; use `truncation`, or have the model write a summary"
    )


class ResponsesService(ApiServicer, ResponsesServiceServicer):
    CreateResponse = post(create.create)
    CountInputTokens = post(create.count_tokens)
    CompactResponse = call(_compact)
    GetResponse = call(retrieve.get)
    DeleteResponse = call(retrieve.delete)
    CancelResponse = call(retrieve.cancel)
    ListInputItems = call(retrieve.input_items)
    CreateConversation = call(conversation_calls.create)
    GetConversation = call(conversation_calls.get)
    UpdateConversation = call(conversation_calls.update)
    DeleteConversation = call(conversation_calls.delete)
    CreateConversationItems = call(conversation_calls.add_items)
    ListConversationItems = call(conversation_calls.list_items)
    GetConversationItem = call(conversation_calls.get_item)
    DeleteConversationItem = call(conversation_calls.delete_item)
