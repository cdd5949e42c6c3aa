"""Pure room: what a choice has beside its text: log probabilities, token ids, the echoed prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from headrace.logprobs import Logprobs
from headrace.v1.common_pb2 import Choice
from headrace_gateway.api.bodies.output_options import OutputOptions
from headrace_gateway.api.openai.logprobs_json import (
    TextOffset,
    TokenLogprobs,
    chat_logprobs,
    completion_logprobs,
    prompt_logprobs,
)
from headrace_gateway.models.token_text import ById, TokenTexts, VocabularyTexts
from headrace_gateway.output.answering import Answer
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.request.generation_request import (
    Conversation,
    GenerationRequest,
    Text,
    last_answer,
)
from headrace_gateway.request.logprob_columns import read_run


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    """Text that is echoed before each choice; empty if none is."""
    token_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class ChoiceContent:
    text: str
    logprobs: str = "null"
    """JSON."""
    token_ids: Sequence[int] = ()
    """Empty where they are not requested; so are the next."""
    prompt_ids: Sequence[int] = ()


class LogprobsFormatter:
    """Formats the choices of one answer. Call `delta_content` for all deltas, in order."""

    def __init__(
        self,
        options: OutputOptions,
        spelling: VocabularyTexts,
        prompt: Prompt,
        *,
        choices: int,
        answer_index: Callable[[int], int] = lambda _: 0,
    ) -> None:
        """
        Args:
            answer_index: returns where the answer of a choice begins, in tokens. What is before has
                no rows and ids where reasoning is not sent.
        """
        self._answer_index = answer_index
        self._options, self._prompt = options, prompt
        self._spelling: TokenTexts = ById(spelling) if options.tokens_as_ids else spelling
        self._places = [TextOffset() for _ in range(choices)]

    def delta_content(self, delta: ChoiceDelta) -> ChoiceContent | None:
        """Return what is sent for a delta; None if it has nothing to send.

        Call it for all deltas, in order: offsets into the text are counted.
        """
        begins = delta.first_index == 0 and bool(delta.token_ids)
        text, rows = "", list[TokenLogprobs]()
        if self._options.echo_last_message and begins:
            text = self._prompt.text
        if echoes := self._options.echo and begins:
            text = self._prompt.text
            rows += self._of_prompt(delta.prompt_logprobs or Logprobs())
        if self._options.echo_only:
            return ChoiceContent(text, self._logprobs(delta.choice, rows)) if echoes else None
        text += delta.text
        skipped = 0 if self._options.reasoning else delta.reasoned
        ids = delta.token_ids[skipped:] if self._options.token_ids else ()
        if delta.logprobs is not None:
            rows += [*zip(delta.token_ids, delta.logprobs.rows(), strict=True)][skipped:]
        if not (text or ids or rows):
            return None
        logprobs = self._logprobs(delta.choice, rows) if rows else "null"
        return ChoiceContent(text, logprobs, ids, self.prompt_ids(chat=False) if begins else ())

    def choice_content(self, choice: Choice) -> ChoiceContent:
        """Return the content of a whole choice."""
        rows: list[TokenLogprobs] = []
        skipped = 0 if self._options.reasoning else self._answer_index(choice.index)
        if self._options.echo:
            rows += self._of_prompt(read_run(choice.prompt_logprobs))
        if not self._options.echo_only:
            of_output = zip(choice.token_ids, read_run(choice.logprobs).rows(), strict=False)
            rows += [*of_output][skipped:]
        before = self._prompt.text if self._options.echo or self._options.echo_last_message else ""
        text = "" if self._options.echo_only else choice.text
        has_ids = self._options.token_ids and not self._options.echo_only
        ids = choice.token_ids[skipped:] if has_ids else ()
        return ChoiceContent(
            before + text, self._logprobs(choice.index, rows), ids, self.prompt_ids(chat=False)
        )

    def prompt_ids(self, *, chat: bool) -> Sequence[int]:
        """Return the prompt's token ids as the answer has them in chat, or else each choice."""
        has_ids = self._options.token_ids and self._options.chat is chat
        return self._prompt.token_ids if has_ids else ()

    def prompt_logprobs_json(self, choice: Choice) -> str | None:
        """Return the JSON of vLLM's `prompt_logprobs`; None where they are not requested."""
        if (width := self._options.prompt_logprobs) is None:
            return None
        rows = self._of_prompt(read_run(choice.prompt_logprobs))
        return prompt_logprobs(rows, self._spelling, width=width)

    def _of_prompt(self, run: Logprobs) -> list[TokenLogprobs]:
        first, *rest = self._prompt.token_ids
        return [(first, None), *zip(rest, run.rows(), strict=False)]

    def _logprobs(self, choice: int, rows: Iterable[TokenLogprobs]) -> str:
        if (width := self._options.logprobs) is None:
            return "null"
        if self._options.chat:
            return chat_logprobs(rows, self._spelling)
        return completion_logprobs(rows, self._spelling, self._places[choice], width=width)


def formatter_for(
    options: OutputOptions, requested: GenerationRequest, answer: Answer, prompt_ids: Sequence[int]
) -> LogprobsFormatter | None:
    """Return the formatter of an answer; None if nothing is requested beside its text."""
    if not options.any_requested:
        return None
    text, given = "", requested.prompt
    if options.echo:
        is_text = isinstance(given, Text)
        read = answer.tokenizer.decode if is_text else answer.tokenizer.decode_whole
        text = read(list(prompt_ids))
        if isinstance(given, Text) and requested.truncate_tokens is None:
            text = given.text
    if options.echo_last_message and isinstance(given, Conversation):
        text = last_answer(given)
    prompt = Prompt(text, prompt_ids)
    return LogprobsFormatter(
        options,
        answer.tokenizer.spelling,
        prompt,
        choices=answer.request.n,
        answer_index=answer.answer_index,
    )
