"""Pure: the output of one open request, accepted from its newest attempt only.

Exactly-once delivery follows from (attempt, choice, index) alone: only tokens of the newest attempt
are accepted, only the next index is new, and a repeated index is compared with what is stored. The
log holds token ids and their logprobs until the request is settled: at most `max_tokens` a choice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from headrace.errors import HeadraceError
from headrace.internal.v1.request_pb2 import ChoiceProgress
from headrace.logprobs import Logprobs
from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.request.generation import ChoiceEnded, Event, Failed, Tokens


class Verdict(Enum):
    """What became of something that a worker said."""

    TAKEN = auto()
    REPEATED = auto()
    """Said before, and the same."""
    MISMATCHED = auto()
    """Said before, and different: what is kept stays. Determinism is broken somewhere."""
    STALE = auto()
    """Of an attempt that is no longer heard, or of a choice at its end. Its sender must stop."""


class SenderFault(Exception):
    """A sender's words do not fit together: it skips an index, or passes a bound.

    Nothing of it was taken. Its attempt must be fenced and the request put back.
    """


@dataclass(frozen=True, slots=True)
class LogprobsRequest:
    """What is to come with the tokens."""

    logprobs: bool = False
    prompt_logprobs: int | None = None
    """How many tokens of the prompt are told of, before any output; None where none are wanted."""


NOTHING = LogprobsRequest()


class _Choice:
    __slots__ = ("cached", "ended", "ids", "logprobs", "prompt", "reason", "vector")

    def __init__(self, logprobs_request: LogprobsRequest) -> None:
        self.ids: list[int] = []
        self.logprobs = Logprobs() if logprobs_request.logprobs else None
        """Of `ids`; None where they are not wanted, as the next."""
        self.prompt = Logprobs() if logprobs_request.prompt_logprobs is not None else None
        self.reason: FinishReason.ValueType = FinishReason.FINISH_REASON_UNSPECIFIED
        self.vector = b""
        self.cached: int | None = None
        """Of the prompt's tokens, as the first attempt said it that had output."""
        self.ended = False


class OutputLog:
    def __init__(
        self, *, choices: int, max_tokens: int, logprobs_request: LogprobsRequest = NOTHING
    ) -> None:
        self._logprobs_request = logprobs_request
        self._choices = [_Choice(self._logprobs_request) for _ in range(choices)]
        self._max_tokens = max_tokens
        self._accepted_attempt = 0
        """The one attempt whose tokens are taken; 0 while there is none."""
        self._newest_attempt = 0
        self._fence = 0
        self._error: HeadraceError | None = None

    @property
    def newest_attempt(self) -> int:
        """Newest attempt seen; 0 before the first."""
        return self._newest_attempt

    @property
    def ended(self) -> bool:
        """Nothing more will be taken; there may be something left to drain."""
        return self._error is not None or all(choice.ended for choice in self._choices)

    def reading(self) -> OutputCursor:
        """From the beginning, for one more reader."""
        return OutputCursor(self)

    def resume(self, attempt: int, progress: Iterable[ChoiceProgress]) -> None:
        """Begin, before anything is heard, where attempts up to this one came under another relay.

        Of what was to come with these tokens nothing is known: where there are such wishes they
        are to be made anew, and `progress` is to be empty.
        """
        self._newest_attempt = attempt
        self.fence(attempt)
        for point in progress:
            kept = self._choices[point.choice]
            kept.ids.extend(point.output_ids)
            kept.reason, kept.ended = point.finish_reason, point.finish_reason != 0
            if point.HasField("cached_prompt_tokens"):
                kept.cached = point.cached_prompt_tokens

    @property
    def output_tokens(self) -> int:
        return sum(len(choice.ids) for choice in self._choices)

    def accepts(self, attempt: int) -> bool:
        """Whether tokens of this attempt are taken."""
        return attempt == self._accepted_attempt and not self.ended

    def has_ended(self, choice: int) -> bool:
        return self._choices[choice].ended or self._error is not None

    def open(self, choice: int, attempt: int) -> bool:
        """Hear a sender from now on; False: it must stop. A newer attempt silences all older.

        Raises:
            SenderFault: there is no such choice.
        """
        if attempt <= self._fence or attempt < self._newest_attempt or self._error is not None:
            return False
        self._newest_attempt = self._accepted_attempt = attempt
        if choice >= len(self._choices):
            raise SenderFault(f"choice {choice} of a request with {len(self._choices)}")
        return not self._choices[choice].ended

    def fence(self, attempt: int) -> None:
        """Hear nothing more of attempts up to this one."""
        self._fence = max(self._fence, attempt)
        if self._accepted_attempt <= self._fence:
            self._accepted_attempt = 0

    def take_prompt(self, choice: int, attempt: int, first_index: int, run: Logprobs) -> None:
        """What a sender knows of the prompt, in order. Not compared with what was said before.

        Raises:
            SenderFault: a part is missing before it, or there is too much of it.
        """
        kept, whole = self._choices[choice].prompt, self._logprobs_request.prompt_logprobs
        if attempt != self._accepted_attempt or kept is None or whole is None:
            return
        if first_index > len(kept) or first_index + len(run) > whole:
            raise SenderFault(
                f"{len(run)} logprobs of the prompt from {first_index} on, where {len(kept)} of"
                f" {whole} are known"
            )
        kept.extend(run.cut(len(kept) - first_index))

    def take_cached(self, choice: int, attempt: int, tokens: int) -> None:
        """How much of the prompt a sender had in its cache."""
        kept = self._choices[choice]
        if attempt == self._accepted_attempt and kept.cached is None:
            kept.cached = tokens

    def take(
        self,
        choice: int,
        attempt: int,
        index: int,
        token_id: int,
        logprobs: Logprobs | None = None,
    ) -> Verdict:
        """One token of a sender that was opened, with its logprobs where they are wanted.

        Raises:
            SenderFault: the index is not the next, or beyond the request's bound; or logprobs
                are missing, its own or the prompt's.
        """
        if attempt != self._accepted_attempt:
            return Verdict.STALE
        kept = self._choices[choice]
        ids = kept.ids
        if kept.ended or self._error is not None:
            return Verdict.STALE
        if index == len(ids):
            if index >= self._max_tokens:
                raise SenderFault(f"output index {index} of at most {self._max_tokens} tokens")
            if index == 0 and kept.prompt is not None:
                self._require_whole(kept.prompt)
            if kept.logprobs is not None:
                if logprobs is None:
                    raise SenderFault(f"output index {index} without logprobs")
                kept.logprobs.extend(logprobs)
            ids.append(token_id)
            return Verdict.TAKEN
        if index > len(ids):
            raise SenderFault(f"output index {index} where {len(ids)} was next")
        return Verdict.REPEATED if ids[index] == token_id else Verdict.MISMATCHED

    def _require_whole(self, prompt: Logprobs) -> None:
        if len(prompt) != self._logprobs_request.prompt_logprobs:
            whole = self._logprobs_request.prompt_logprobs
            raise SenderFault(f"output after {len(prompt)} of {whole} logprobs of the prompt")

    def end(
        self,
        choice: int,
        attempt: int,
        reason: FinishReason.ValueType,
        output_tokens: int,
        vector: bytes = b"",
    ) -> Verdict:
        """The engine's end of a choice. MISMATCHED: it ended earlier than what is kept; taken.

        `vector` is what an input came to; the first that comes is kept.

        Raises:
            SenderFault: tokens are missing before the end.
        """
        kept = self._choices[choice]
        if attempt != self._accepted_attempt or kept.ended or self._error is not None:
            return Verdict.STALE
        if output_tokens > len(kept.ids):
            raise SenderFault(f"the end of {output_tokens} tokens after {len(kept.ids)}")
        kept.reason, kept.vector = reason, vector
        kept.ended = True
        return Verdict.TAKEN if output_tokens == len(kept.ids) else Verdict.MISMATCHED

    def stop(self, choice: int) -> None:
        """A reader's end of a choice: a stop string came."""
        kept = self._choices[choice]
        if not kept.ended:
            kept.reason = FinishReason.FINISH_REASON_STOP
            kept.ended = True

    def fail(self, error: HeadraceError) -> bool:
        """End the whole request with an error; False: it has ended already."""
        if self.ended:
            return False
        self._error = error
        return True

    def progress(self) -> list[ChoiceProgress]:
        """Where each choice stands: enough to go on elsewhere."""
        return [
            ChoiceProgress(
                choice=c,
                output_ids=kept.ids,
                finish_reason=kept.reason,
                cached_prompt_tokens=kept.cached,
            )
            for c, kept in enumerate(self._choices)
            if kept.ids or kept.ended
        ]

    # For `OutputCursor`

    @property
    def choices(self) -> int:
        return len(self._choices)

    @property
    def error(self) -> HeadraceError | None:
        return self._error

    def length(self, choice: int) -> int:
        return len(self._choices[choice].ids)

    def news(self, choice: int, first: int) -> Tokens:
        """All from an index on."""
        kept = self._choices[choice]
        return Tokens(
            choice,
            first,
            kept.ids[first:],
            None if kept.logprobs is None else kept.logprobs.cut(first),
            kept.prompt if first == 0 else None,
            kept.cached if first == 0 else None,
        )

    def ending(self, choice: int) -> ChoiceEnded | None:
        """None before it; a vector is given out once."""
        kept = self._choices[choice]
        if not kept.ended:
            return None
        vector, kept.vector = kept.vector, b""
        return ChoiceEnded(choice, kept.reason, vector)


class OutputCursor:
    """How far one reader of a relay is: each hears all of it, from the beginning."""

    def __init__(self, output: OutputLog) -> None:
        self._output = output
        self._relayed = [0] * output.choices
        """How many tokens of each choice have been drained."""
        self._told = [False] * output.choices
        """Whether the reader knows of the end."""
        self._over = False

    @property
    def over(self) -> bool:
        """Ended, and the end has been drained or was the reader's own."""
        return self._over

    def stop(self, choice: int) -> None:
        """The reader's own end of a choice."""
        self._output.stop(choice)
        self._relayed[choice], self._told[choice] = self._output.length(choice), True
        self._over = self._over or all(self._told)

    def drain(self) -> list[Event]:
        """What has come since the last call; after the end, nothing."""
        if self._over:
            return []
        output, events = self._output, list[Event]()
        for choice, relayed in enumerate(self._relayed):
            if self._told[choice]:
                continue
            if relayed < (length := output.length(choice)):
                events.append(output.news(choice, relayed))
                self._relayed[choice] = length
            if (ending := output.ending(choice)) is not None:
                events.append(ending)
                self._told[choice] = True
        if output.error is not None:
            events.append(Failed(output.error))
            self._over = True
        elif all(self._told):
            self._over = True
        return events
