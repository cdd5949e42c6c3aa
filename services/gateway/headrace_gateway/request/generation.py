"""Between the APIs and the mesh: a `ValidRequest` goes in, a `Generation` of token ids comes out.

APIs turn bodies into requests and token ids into text; the mesh side (`queue`, `stream`) knows no
text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headrace.auth.scopes import DEFAULT_TENANT
from headrace.errors import HeadraceError
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.request_pb2 import Rendering, RequestRecord, Sampling
from headrace.logprobs import Logprobs
from headrace.request_keys import public_id, request_key
from headrace.v1 import common_pb2
from headrace_gateway.base.calls import BatchRow
from headrace_gateway.request.payer import Payer, TokenRange, first_output
from headrace_gateway.request.served_names import SEPARATOR


@dataclass(frozen=True, slots=True)
class Input:
    """The input of one vector."""

    token_ids: tuple[int, ...]
    second_begins: int = 0
    """Of a pair of texts: where the second begins."""


@dataclass(frozen=True, slots=True)
class ValidRequest:
    """A request that has passed every check that does not depend on load."""

    request_id: str
    card: ModelCard
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    n: int
    priority: common_pb2.Priority.ValueType
    timeout_s: float
    """Counted from arrival."""
    patience_s: float
    trace_context: dict[str, str]
    adapter: str = ""
    """What the model runs with, by name; empty: nothing."""
    adapter_digest: str = ""
    tenant: str = DEFAULT_TENANT
    key_id: str = ""
    """Of the key that pays; empty: none."""
    person: str = ""
    """Id of the person whose key it is; empty: none."""
    inputs: tuple[Input, ...] = ()
    """In place of `prompt_ids`, for a model that makes vectors; `n` is their count."""
    rendering: Rendering = field(default_factory=Rendering)
    """How its tokens become text, without the digest. Engines do not know the stop strings."""
    resumable: bool = False
    """Its client reads a stream, and may resume it."""
    cache_salt: str = ""
    """What is cached of its prompt is shared with requests of equal salt alone."""
    once: bool = False
    """Its id is its name: another request of that id is not run while its result is kept."""
    background: bool = False
    """It runs without any reader."""
    result_ttl_s: float = 0.0
    """How long its result is kept; 0: as long as the bus keeps results anyway."""
    stored_response: bool = False
    """Its result is stored with the conversations as well."""
    row: BatchRow | None = None
    """Set of a row of a batch."""
    is_part: bool = False
    """Of a call that is several requests, another one counts as the request."""

    @property
    def key(self) -> str:
        return request_key(self.tenant, self.request_id)

    @property
    def model(self) -> str:
        """By its primary name, whichever of its names the caller used, with the adapter if there is
        one: as it is listed and billed."""
        return f"{self.card.model}{SEPARATOR}{self.adapter}" if self.adapter else self.card.model

    @property
    def weights(self) -> str:
        return weights_name(self.card.weights_digest, self.adapter_digest)

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt_ids) + sum(len(each.token_ids) for each in self.inputs)

    @property
    def most_output_tokens(self) -> int:
        """Of all choices together."""
        return self.n * self.sampling.max_tokens

    def first_output_tokens(self, ahead: int) -> int:
        """Return what is reserved before it is queued, if so much is ahead; more is reserved while
        it runs."""
        return first_output(self.most_output_tokens, batch=self.row is not None, ahead=ahead)

    @property
    def payer(self) -> Payer:
        batch = self.row is not None
        return Payer(self.tenant, self.key_id, self.model, batch=batch, is_part=self.is_part)


@dataclass(frozen=True, slots=True)
class Tokens:
    """New output of one choice; contiguous over the life of a generation."""

    choice: int
    first_index: int
    token_ids: list[int]
    logprobs: Logprobs | None = None
    """Of `token_ids`, where they are requested."""
    prompt_logprobs: Logprobs | None = None
    """Of all of the prompt but its first token, where they are requested; with the first output."""
    cached_prompt: int | None = None
    """Tokens of the prompt that were in a cache; with the first output, where that is known."""

    def split(self, count: int) -> tuple[Tokens, Tokens | None]:
        """Return the first `count` tokens, and the others if there are any."""
        ids, logprobs = self.token_ids, self.logprobs
        if count >= len(ids):
            return self, None
        begin = Tokens(
            self.choice,
            self.first_index,
            ids[:count],
            logprobs and logprobs.cut(0, count),
            self.prompt_logprobs,
            self.cached_prompt,
        )
        return begin, Tokens(
            self.choice, self.first_index + count, ids[count:], logprobs and logprobs.cut(count)
        )

    def singly(self) -> Iterator[Tokens]:
        """Yield the same output, one token at a time."""
        if len(self.token_ids) < 2:
            yield self
            return
        for at, token_id in enumerate(self.token_ids):
            is_first = at == 0
            yield Tokens(
                self.choice,
                self.first_index + at,
                [token_id],
                self.logprobs and self.logprobs.cut(at, at + 1),
                self.prompt_logprobs if is_first else None,
                self.cached_prompt if is_first else None,
            )


@dataclass(frozen=True, slots=True)
class ChoiceEnded:
    """The engine ended this choice; no tokens of it follow."""

    choice: int
    finish_reason: common_pb2.FinishReason.ValueType
    vector: bytes = b""
    """Of an input: float32, little-endian."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The whole request ended with an error; nothing follows."""

    error: HeadraceError


@dataclass(frozen=True, slots=True)
class Queued:
    """No worker runs it now. It is alone in its list of events, and independent of the output."""

    ahead: int | None = None
    """Of its lane, requests that came before it and wait; None if unknown."""
    wait_s: float | None = None
    """Estimated; None if unknown."""
    waits_for_quota: bool = False
    """It is in no lane: the quota keeper is to grant it more output first."""


Event = Tokens | ChoiceEnded | Failed | Queued


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """What an answer repeats of its request, where another call has opened that."""

    record: RequestRecord

    @property
    def request_id(self) -> str:
        return public_id(self.record.request_id)

    @property
    def model(self) -> str:
        return SEPARATOR.join(filter(None, (self.record.model, self.record.adapter)))

    @property
    def weights(self) -> str:
        return weights_name(self.record.weights_digest, self.record.adapter_digest)

    @property
    def seed(self) -> int:
        return self.record.seed

    @property
    def n(self) -> int:
        return max(1, self.record.n)

    @property
    def prompt_tokens(self) -> int:
        return self.record.prompt_tokens


RequestDescription = ValidRequest | RecordedRequest
"""What an answer repeats of its request."""


def weights_name(*digests: str) -> str:
    """Return a short name of all weights that produced an answer."""
    return "-".join(digest[:12] for digest in filter(None, digests))


class Generation:
    """One reader's end of a request's output. Exactly one of `settle` and `abandon` ends it.

    As it stands it needs no end, as the output of a stored result does; sources that hold
    something override what they must.
    """

    def __init__(self, record: RequestRecord) -> None:
        """`record` has neither prompt nor output."""
        self.record = record

    @property
    def arrival_s(self) -> float:
        """Of the request, in Unix time."""
        return self.record.arrival.ToNanoseconds() / 1e9

    def events(self) -> AsyncIterator[list[Event]]:
        """Yield what has come since the last list, with at most one `Tokens` per choice and list.

        A slow reader gets longer lists; nothing is dropped. Ends after every choice has
        ended (by `ChoiceEnded` or `end_choice`) or after `Failed`.
        """
        raise NotImplementedError

    def arrived(self) -> list[Event]:
        """Return what `events` would yield now, without waiting: all that a reader that leaves
        has not read."""
        return []

    def end_choice(self, choice: int, tokens: int) -> None:
        """Stop a choice in which a stop string was found, after so many tokens; its worker is
        notified at once."""

    async def settle(self, outcome: common_pb2.RequestOutcome) -> None:
        """Report that the end has been sent to the caller. Store the outcome, free what is held.

        Safe to be cancelled: the settling itself goes on.
        """

    async def abandon(self) -> None:
        """Stop reading. The last reader to do so cancels the request, unless it is a background
        request, which its gateway reads. A no-op after `settle`."""


class Admission(Protocol):
    def check(
        self,
        model: str,
        priority: common_pb2.Priority.ValueType,
        *,
        payer: Payer,
        tokens: TokenRange,
        patience_s: float,
    ) -> None:
        """Refuse now what would only be refused later; cheap, before tokenising.

        Raises:
            CapacityError: the lane is full, its wait exceeds the patience, or this gateway drains;
                or a limit was reached a moment ago.
            InsufficientQuota: as of `open`.
        """
        ...

    def most_at_once(self, payer: Payer) -> int | None:
        """Return how many requests the payer's limits can admit at one moment; None: any number."""
        ...

    async def open(self, request: ValidRequest) -> Generation:
        """Put a request into its lane; returns once it is durable.

        Raises:
            CapacityError: the lane is full, the broker away, a limit of a minute or of requests
                under way reached, or the quota keeper silent; nothing is queued, and nothing
                stays reserved.
            InsufficientQuota: a limit of a day or a budget is used up, or the request exceeds one.
            RequestExists: its id is open.
        """
        ...

    async def open_all(self, requests: Sequence[ValidRequest]) -> list[Generation]:
        """Open all of them, or none: limits admit them together.

        Raises:
            HeadraceError: as `open`; those that were open are abandoned.
        """
        ...
