"""What every path of this package needs: a call's beginning and end, its body, and its model."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import BeforeValidator

from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.api.bodies.reading import read_body
from headrace_gateway.api.bodies.strict_body import StrictBody
from headrace_gateway.api.http.call_counter import CallCounter
from headrace_gateway.api.http.reply import ErrorFormat, Reply, handle_errors
from headrace_gateway.base.calls import Call, Context, call_of
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.models.catalog import Catalog
from headrace_gateway.request.tasks import only_model
from headrace_gateway.submit.embedding import Embedding
from headrace_gateway.submit.submitter import Submitter


def member_pattern(name: bytes) -> re.Pattern[bytes]:
    """What finds a member of this name that is not null in the bytes of a JSON body.

    Bodies are told apart by it before they are read, which is done once: in JSON a string before
    a colon is a name, for quotes within a text have a backslash before them.
    """
    return re.compile(rb'"%s"\s*:(?!\s*null)' % name)


AnyBody = TypeVar("AnyBody", bound=StrictBody)

OptionalModel = Annotated[str, BeforeValidator(lambda name: name or "")]
"""Empty where the caller names none, as servers of one model allow."""

RELEVANCE = (ModelTask.MODEL_TASK_SCORE, ModelTask.MODEL_TASK_EMBED)
"""Tasks of models that tell how relevant a document is to a query."""


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A call that is being answered."""

    call: Call
    reply: Reply
    counter: CallCounter


class ApiServices:
    """What the paths of this package are served with."""

    def __init__(
        self, catalog: Catalog, submitter: Submitter, embedding: Embedding, limits: GatewaySettings
    ) -> None:
        self.catalog, self.submitter, self.embedding = catalog, submitter, embedding
        self.limits = limits

    @asynccontextmanager
    async def call(self, context: Context, errors: ErrorFormat) -> AsyncIterator[HttpCall]:
        """A call from its metadata to its one end; what goes wrong inside is told by `errors`."""
        call = call_of(context)
        with CallCounter("openai") as counter:
            reply = Reply(context, errors, call.request_id, counter)
            async with handle_errors(reply):
                yield HttpCall(call, reply, counter)

    def read(self, kind: type[AnyBody], data: bytes, http: HttpCall) -> AnyBody:
        """The call's body.

        Raises:
            InvalidRequest: it is not such a body.
            Unsupported: a field is known but not served.
        """
        return read_body(kind, data, http.call, self.limits, http.reply)

    def model(self, name: str, http: HttpCall, *tasks: ModelTask.ValueType) -> str:
        """The model that is asked for: where none is named, the only one for one of these tasks.

        Raises:
            InvalidRequest: none is named, and there is not one.
        """
        name = name or only_model((served.card for served in self.catalog.all()), *tasks)
        http.counter.model = self.submitter.known(name)
        return name

    async def beginnings(self, model: str, texts: list[str], most_tokens: int) -> list[str]:
        """The texts, each cut to so many of the model's tokens, or to as many as it takes.

        Raises:
            ModelNotFound: there is no such model.
        """
        served = self.catalog.get(model)
        most_tokens = min(most_tokens, served.card.context_tokens)
        # Why before: what no token count could let through is not tokenised.
        characters = most_tokens * self.limits.max_prompt_characters_per_token
        short = [text[:characters] for text in texts]
        return await served.tokenizer.beginnings(short, most_tokens)
