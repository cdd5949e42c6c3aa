"""The output of a stored result, as a reader of the request that made it gets it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from headrace.errors import RequestNotFound
from headrace.internal.v1.attach_pb2 import AttachedTokens
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.request_keys import public_id
from headrace.rpc.status import from_status
from headrace.v1.common_pb2 import Choice, FinishReason
from headrace_gateway.request.generation import ChoiceEnded, Event, Failed, Generation, Tokens
from headrace_gateway.request.logprob_columns import read_run
from headrace_gateway.stream.stored_record import wants_logprobs


class StoredOutput(Generation):
    """The output of a stored result. It holds nothing, so it need not be ended."""

    def __init__(self, result: ResultRecord) -> None:
        """
        Raises:
            RequestNotFound: the request has logprobs, which were too large to be stored.
        """
        super().__init__(result.request)
        self._outcome = result.outcome
        lacks_logprobs = any(
            choice.token_ids and not _has_logprobs(choice) for choice in result.outcome.choices
        )
        if lacks_logprobs and wants_logprobs(self.record):
            raise RequestNotFound(
                f"request {public_id(self.record.request_id)} has ended; its result was too large"
                " to be stored with log probabilities",
                field="request_id",
            )

    async def events(self) -> AsyncIterator[list[Event]]:
        outcome, events = self._outcome, list[Event]()
        known = outcome.usage.HasField("cached_prompt_tokens")
        cached = outcome.usage.cached_prompt_tokens if known else None
        for choice in outcome.choices:
            if choice.token_ids:
                events.append(tokens_of(choice, choice.index, 0, cached))
            if choice.finish_reason != FinishReason.FINISH_REASON_UNSPECIFIED:
                events.append(ChoiceEnded(choice.index, choice.finish_reason))
        if outcome.HasField("error"):
            events.append(Failed(from_status(outcome.error)))
        yield events


def tokens_of(
    message: Choice | AttachedTokens, choice: int, first_index: int, cached: int | None
) -> Tokens:
    return Tokens(
        choice,
        first_index,
        list(message.token_ids),
        read_run(message.logprobs) if message.HasField("logprobs") else None,
        read_run(message.prompt_logprobs) if message.HasField("prompt_logprobs") else None,
        cached,
    )


def _has_logprobs(choice: Choice) -> bool:
    return choice.HasField("logprobs") or choice.HasField("prompt_logprobs")
