"""Pure: the output of one open request, accepted from its newest attempt only.

Exactly-once delivery follows from (attempt, choice, index) alone: only tokens of the newest attempt
are accepted, only the next index is new, and a repeated index is compared with what is stored. The
log holds token ids and their logprobs until the request is settled: at most `max_tokens` a choice,
and of all choices together at most its budget, which may grow.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto

from headrace.errors import HeadraceError
from headrace.internal.v1.request_pb2 import ChoiceProgress
from headrace.logprobs import Logprobs
from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.request.generation import ChoiceEnded, Event, Failed, Tokens


class Verdict(Enum):
    """What was done with a worker's token or end."""

    TAKEN = auto()
    REPEATED = auto()
    """Already in the log, and equal."""
    MISMATCHED = auto()
    """Already in the log, and different: the log stays as it is. Determinism is broken."""
    STALE = auto()
    """Of an attempt that is not accepted, or of an ended choice. The slot must be cancelled."""
    BEYOND_BUDGET = auto()
    """Not taken: the budget is used up. The attempt must be stopped until there is more."""


class SenderFault(Exception):
    """A worker skipped an index or passed a bound.

    Nothing of it was accepted. Its attempt must be fenced and the request retried.
    """


class _Choice:
    __slots__ = ("cached", "ended", "ids", "logprobs", "prompt", "reason", "vector")

    def __init__(self, *, logprobs: bool, prompt_logprobs: bool) -> None:
        self.ids: list[int] = []
        self.logprobs = Logprobs() if logprobs else None
        """Of `ids`; None if not requested, as the next."""
        self.prompt = Logprobs() if prompt_logprobs else None
        self.reason: FinishReason.ValueType = FinishReason.FINISH_REASON_UNSPECIFIED
        self.vector = b""
        self.cached: int | None = None
        """Cached prompt tokens, of the first attempt that had output."""
        self.ended = False


class OutputLog:
    def __init__(
        self,
        *,
        choices: int,
        max_tokens: int,
        logprobs: bool = False,
        prompt_logprobs: int | None = None,
    ) -> None:
        """
        Args:
            logprobs: each token is to have its logprobs.
            prompt_logprobs: number of prompt tokens with logprobs, which are received before any
                output; None if they are not requested.
        """
        self._choices = [
            _Choice(logprobs=logprobs, prompt_logprobs=prompt_logprobs is not None)
            for _ in range(choices)
        ]
        self._max_tokens, self._prompt_logprobs = max_tokens, prompt_logprobs
        self.most_tokens = choices * max_tokens
        """Of all choices together, if none ends early."""
        self.budget = self._ask_at = self.most_tokens
        """Most output tokens, of all choices together."""
        self._taken = 0
        self._accepted_attempt = 0
        """The attempt whose tokens are accepted; 0 if none."""
        self._newest_attempt = 0
        self._fence = 0
        self._error: HeadraceError | None = None

    @property
    def newest_attempt(self) -> int:
        """Newest attempt seen; 0 before the first."""
        return self._newest_attempt

    @property
    def ended(self) -> bool:
        """Nothing more is accepted; readers may have some left to drain."""
        return self._error is not None or all(choice.ended for choice in self._choices)

    def resume(self, attempt: int, progress: Iterable[ChoiceProgress]) -> None:
        """Start from the output that attempts up to this one had at another gateway.

        Their logprobs are unknown: for a request with logprobs `progress` must be empty, so that
        its tokens are made again, equal.
        """
        self._newest_attempt = attempt
        self.fence(attempt)
        for point in progress:
            kept = self._choices[point.choice]
            kept.ids.extend(point.output_ids)
            self._taken += len(point.output_ids)
            kept.reason, kept.ended = point.finish_reason, point.finish_reason != 0
            if point.HasField("cached_prompt_tokens"):
                kept.cached = point.cached_prompt_tokens

    @property
    def output_tokens(self) -> int:
        return self._taken

    def allow(self, budget: int, *, ask_at: int) -> None:
        """Take so many output tokens in all; `is_low` from `ask_at` tokens on."""
        self.budget, self._ask_at = budget, ask_at

    @property
    def is_low(self) -> bool:
        """Whether more budget is to be asked for now."""
        return self._taken >= self._ask_at and self.budget < self.most_tokens

    @property
    def is_used_up(self) -> bool:
        """Whether nothing more can be made without more budget."""
        return self._taken >= self.budget and self.budget < self.most_tokens and not self.ended

    @property
    def cached_prompt(self) -> int | None:
        """Cached prompt tokens of the first choice: the others find what that one has cached."""
        return self._choices[0].cached

    def accepts(self, attempt: int) -> bool:
        """Return whether tokens of this attempt are accepted."""
        return attempt == self._accepted_attempt and not self.ended

    def has_ended(self, choice: int) -> bool:
        return self._choices[choice].ended or self._error is not None

    def open(self, choice: int, attempt: int) -> bool:
        """Accept a worker's slot; False: it must be cancelled. A newer attempt fences all older.

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
        """Accept nothing more of attempts up to this one."""
        self._fence = max(self._fence, attempt)
        if self._accepted_attempt <= self._fence:
            self._accepted_attempt = 0

    def take_prompt(self, choice: int, attempt: int, first_index: int, run: Logprobs) -> None:
        """Append logprobs of the prompt, in order. A repeat is not compared.

        Raises:
            SenderFault: a part is missing before it, or there is too much of it.
        """
        kept, whole = self._choices[choice].prompt, self._prompt_logprobs
        if attempt != self._accepted_attempt or kept is None or whole is None:
            return
        if first_index > len(kept) or first_index + len(run) > whole:
            raise SenderFault(
                f"{len(run)} logprobs of the prompt from {first_index} on, where {len(kept)} of"
                f" {whole} are known"
            )
        kept.extend(run.cut(len(kept) - first_index))

    def take_cached(self, choice: int, attempt: int, tokens: int) -> None:
        """Store how many prompt tokens a worker had in its cache."""
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
        """Append one token of a slot that was opened, with its logprobs if requested.

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
            if self._taken >= self.budget:
                return Verdict.BEYOND_BUDGET
            if index == 0 and kept.prompt is not None:
                self._require_whole(kept.prompt)
            if kept.logprobs is not None:
                if logprobs is None:
                    raise SenderFault(f"output index {index} without logprobs")
                kept.logprobs.extend(logprobs)
            ids.append(token_id)
            self._taken += 1
            return Verdict.TAKEN
        if index > len(ids):
            raise SenderFault(f"output index {index} where {len(ids)} was next")
        return Verdict.REPEATED if ids[index] == token_id else Verdict.MISMATCHED

    def _require_whole(self, prompt: Logprobs) -> None:
        if len(prompt) != (whole := self._prompt_logprobs):
            raise SenderFault(f"output after {len(prompt)} of {whole} logprobs of the prompt")

    def end(
        self,
        choice: int,
        attempt: int,
        reason: FinishReason.ValueType,
        output_tokens: int,
        vector: bytes = b"",
    ) -> Verdict:
        """End a choice as the engine did. MISMATCHED: the log has more tokens; the end is accepted.

        `vector` is the vector of an input; the first one is stored.

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

    def stop(self, choice: int, tokens: int) -> None:
        """End a choice behind the stop string that a reader found; what follows is no output."""
        kept = self._choices[choice]
        self._taken -= len(kept.ids[tokens:])
        del kept.ids[tokens:]
        kept.logprobs = kept.logprobs and kept.logprobs.cut(0, tokens)
        kept.reason, kept.ended = FinishReason.FINISH_REASON_STOP, True

    def fail(self, error: HeadraceError) -> bool:
        """End the whole request with an error; False: it has ended already."""
        if self.ended:
            return False
        self._error = error
        return True

    def progress(self) -> list[ChoiceProgress]:
        """Return the output of each choice: enough to continue it elsewhere."""
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
        """Return the tokens from an index on."""
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
        """Return the end of a choice, if it has ended; its vector only once."""
        kept = self._choices[choice]
        if not kept.ended:
            return None
        vector, kept.vector = kept.vector, b""
        return ChoiceEnded(choice, kept.reason, vector)


class OutputCursor:
    """How far one reader of an output log is; each reads all of it from the beginning."""

    def __init__(self, output: OutputLog) -> None:
        self._output = output
        self._drained = [0] * output.choices
        """Number of tokens drained, per choice."""
        self._ended_choices = [False] * output.choices
        """Whether the end was drained, per choice."""
        self.over = False
        """Ended, and the end has been drained or was the reader's own."""

    def stop(self, choice: int, tokens: int) -> None:
        """The reader's own end of a choice, after so many tokens."""
        self._output.stop(choice, tokens)
        self._drained[choice], self._ended_choices[choice] = self._output.length(choice), True
        self.over = self.over or all(self._ended_choices)

    def drain(self) -> list[Event]:
        """Return what has come since the last call; after the end, nothing."""
        if self.over:
            return []
        output, events = self._output, list[Event]()
        for choice, drained in enumerate(self._drained):
            if self._ended_choices[choice]:
                continue
            if drained < (length := output.length(choice)):
                events.append(output.news(choice, drained))
                self._drained[choice] = length
            if (ending := output.ending(choice)) is not None:
                events.append(ending)
                self._ended_choices[choice] = True
        if output.error is not None:
            events.append(Failed(output.error))
            self.over = True
        elif all(self._ended_choices):
            self.over = True
        return events
