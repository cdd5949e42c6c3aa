"""The prologue of every HTTP call, written once: its metadata, its body, its model, its errors.

An endpoint is a body and a function that answers it. This is all that one needs:

    @endpoint(DetokenizeBody)
    async def detokenize(http: HttpCall, body: DetokenizeBody) -> None:
        served = http.services.catalog.get(body.model, http.call.caller)
        text = await served.tokenizer.spelled_out(body.tokens)
        await http.reply.send_json({"prompt": text})

    class OpenAIService(OpenAIServiceServicer):
        Detokenize = post(detokenize)  # the proto says at which path

For `POST /detokenize {"tokens": [7]}` the handler that `post` makes reads the call's metadata,
reads the body as a `DetokenizeBody`, replaces its empty model by the only one there is, counts the
call for that model, and calls `detokenize`. Whatever is raised, by any of these or by `detokenize`,
becomes an error in the endpoint's format; so does a call that was not admitted, which reaches no
handler. The OpenAPI document is made from the same endpoints.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.api.httpbody_pb2 import HttpBody

from headrace.auth.caller import Caller
from headrace.errors import HeadraceError, InternalError
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.api.bodies.strict_body import RequestBody
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.errors import OPENAI_ERRORS, ErrorFormat
from headrace_gateway.api.http.read_body import read_body
from headrace_gateway.api.http.rejection import rejected_by, send_rejection
from headrace_gateway.api.http.reply import Reply
from headrace_gateway.api.http.services import ApiServicer, ApiServices
from headrace_gateway.base.calls import Call, Context, call_of, headers_of
from headrace_gateway.request.tasks import fitting, only_model

log = logging.getLogger(__name__)

AnyBody = TypeVar("AnyBody", bound=RequestBody)

RELEVANCE = (ModelTask.MODEL_TASK_SCORE, ModelTask.MODEL_TASK_EMBED)
"""Tasks of models that score how relevant a document is to a query."""


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A call that is being answered."""

    services: ApiServices
    call: Call
    reply: Reply
    counter: CallCounter


@asynccontextmanager
async def http_call(
    services: ApiServices, context: Context, api: str, errors: ErrorFormat
) -> AsyncIterator[HttpCall]:
    """Answer a call inside of the `with`; what is raised there is reported to the caller once."""
    call = call_of(context)
    with CallCounter(api) as counter:
        http = HttpCall(services, call, Reply(context, errors, call.request_id, counter), counter)
        async with errors_sent(http.reply):
            yield http


@asynccontextmanager
async def errors_sent(reply: Reply) -> AsyncIterator[None]:
    """Send whatever is raised in the `with` as the reply's error."""
    try:
        with reply.limits.noted():
            yield
    except HeadraceError as error:
        await reply.fail(error)
    except Exception:
        log.exception("call.broken", extra={"request_id": reply.request_id})
        await reply.fail(InternalError("the gateway failed; its log says how"))


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[AnyBody]):
    body: type[AnyBody]
    answer: Callable[[HttpCall, AnyBody], Awaitable[None]]
    errors: ErrorFormat
    tasks: tuple[ModelTask.ValueType, ...]
    fits: Callable[[bytes], bool]

    async def serve(self, http: HttpCall, data: bytes) -> None:
        """Answer a call that has this body.

        Raises:
            HeadraceError: it was refused, or its answer failed before a byte of it was sent.
        """
        body = read_body(self.body, data, http.call, http.services.settings, http.reply)
        await self.answer(http, with_model(http, body, self.tasks))


def endpoint(
    body: type[AnyBody],
    *,
    errors: ErrorFormat = OPENAI_ERRORS,
    tasks: tuple[ModelTask.ValueType, ...] = (),
    fits: Callable[[bytes], bool] = bool,
) -> Callable[[Callable[[HttpCall, AnyBody], Awaitable[None]]], Endpoint[AnyBody]]:
    """Make an endpoint of a function.

    Args:
        tasks: of the model that is taken where a body names none; empty: any.
        fits: whether these bytes may be such a body, where a path takes several kinds.
    """
    return lambda answer: Endpoint(body, answer, errors, tasks, fits)


def has_member(name: str) -> Callable[[bytes], bool]:
    """Return whether a JSON body has a member of this name that is not null.

    Bodies are distinguished before they are parsed, which is done once: in JSON a string before a
    colon is a name, because quotes within a text are escaped.
    """
    pattern = re.compile(rb'"%s"\s*:(?!\s*null)' % name.encode())
    return lambda data: pattern.search(data) is not None


def post(*endpoints: Endpoint[Any], api: str = "openai") -> Any:
    """Make the gRPC handler of a path: the first endpoint that fits, or else the last, answers.

    Handlers write to their context, and are no generators: a generator that waits at a `yield`
    when its caller leaves is not notified, but only closed some time later.

    Args:
        api: the label of its calls in metrics.
    """

    def fitting(data: bytes) -> Endpoint[Any]:
        return next((each for each in endpoints if each.fits(data)), endpoints[-1])

    async def handler(self: ApiServicer, request: HttpBody, context: Context) -> None:
        data = request.data
        chosen = fitting(data)
        async with http_call(self.services, context, api, chosen.errors) as http:
            await chosen.serve(http, data)

    async def reject(error: HeadraceError, request: HttpBody, context: Context) -> None:
        await send_rejection(context, api, fitting(request.data).errors, error)

    handler.endpoints = endpoints  # type: ignore[attr-defined]
    return rejected_by(reject, handler)


@dataclass(frozen=True, slots=True)
class Lookup:
    """What answers a path without a body."""

    find: Callable[[ApiServices, Any, Caller], object]
    errors: ErrorFormat = OPENAI_ERRORS
    fits: Callable[[Mapping[str, str]], bool] = lambda headers: True
    """Whether it answers a call with these headers."""


def get(*lookups: Lookup) -> Any:
    """Make the gRPC handler of a path without a body: the first that fits answers with JSON."""

    def fitting(context: Context) -> Lookup:
        headers = headers_of(context.invocation_metadata() or ())
        return next(each for each in lookups if each.fits(headers))

    async def handler(self: ApiServicer, request: Any, context: Context) -> None:
        chosen = fitting(context)
        async with http_call(self.services, context, "openai", chosen.errors) as http:
            await http.reply.send_json(chosen.find(self.services, request, http.call.caller))

    async def reject(error: HeadraceError, request: Any, context: Context) -> None:
        await send_rejection(context, "openai", fitting(context).errors, error)

    return rejected_by(reject, handler)


def with_model(http: HttpCall, body: AnyBody, tasks: tuple[ModelTask.ValueType, ...]) -> AnyBody:
    """Return the body with its model: where it may leave it out, the only one for the tasks.

    Raises:
        InvalidRequest: it names none, and there is not exactly one.
        NoWorker: it names none, none is there for the tasks, and one is still being loaded.
    """
    if not body.model and not type(body).model_fields["model"].is_required():
        catalog, caller = http.services.catalog, http.call.caller
        names = fitting((served.card for served in catalog.visible(caller)), *tasks)
        if not names:
            catalog.require_none_loading(caller)
        body = body.model_copy(update={"model": only_model(names)})
    http.counter.model = http.services.submitter.known(body.model)
    return body
