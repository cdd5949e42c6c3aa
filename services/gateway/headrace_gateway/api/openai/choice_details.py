"""Pure room: what an answer of OpenAI's has beside its text: log probabilities, ids, the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.logprobs import Logprobs
from headrace.v1.common_pb2 import Choice
from headrace_gateway.api.bodies.output_options import Asked
from headrace_gateway.api.openai.logprobs import (
    Offset,
    Told,
    chat_logprobs,
    completion_logprobs,
    prompt_logprobs,
)
from headrace_gateway.models.token_text import ById, TokenTexts, VocabularyTexts
from headrace_gateway.output.assembler import ChoiceDelta
from headrace_gateway.request.logprob_columns import read_run


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    """That stands before each choice, where one does."""
    token_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    logprobs: str = "null"
    """JSON."""
    token_ids: Sequence[int] = ()
    """Empty where they were not asked for; as the next."""
    prompt_ids: Sequence[int] = ()


class Telling:
    """Of one answer, in order."""

    def __init__(
        self, asked: Asked, spelling: VocabularyTexts, prompt: Prompt, *, choices: int
    ) -> None:
        self._asked, self._prompt = asked, prompt
        self._spelling: TokenTexts = ById(spelling) if asked.by_id else spelling
        self._places = [Offset() for _ in range(choices)]

    def piece(self, said: ChoiceDelta) -> Piece | None:
        """What is to be sent for the news; None if there is nothing in it.

        Call it for all of them, in order: places within the text are counted.
        """
        begins = said.first_index == 0 and bool(said.token_ids)
        text, told = "", list[Told]()
        if self._asked.repeats and begins:
            text = self._prompt.text
        if echoes := self._asked.echo and begins:
            text = self._prompt.text
            told += self._of_prompt(said.prompt_logprobs or Logprobs())
        if self._asked.mute:
            return Piece(text, self._logprobs(said.choice, told)) if echoes else None
        text += said.text
        ids = said.token_ids if self._asked.token_ids else ()
        if said.logprobs is not None:
            told += zip(said.token_ids, said.logprobs.rows(), strict=True)
        if not (text or ids or told):
            return None
        logprobs = self._logprobs(said.choice, told) if told else "null"
        return Piece(text, logprobs, ids, self._prompt_ids() if begins else ())

    def whole(self, choice: Choice) -> Piece:
        """All that one choice says."""
        told: list[Told] = []
        if self._asked.echo:
            told += self._of_prompt(read_run(choice.prompt_logprobs))
        if not self._asked.mute:
            told += zip(choice.token_ids, read_run(choice.logprobs).rows(), strict=False)
        before = self._prompt.text if self._asked.echo or self._asked.repeats else ""
        text = "" if self._asked.mute else choice.text
        ids = choice.token_ids if self._asked.token_ids and not self._asked.mute else ()
        return Piece(before + text, self._logprobs(choice.index, told), ids, self._prompt_ids())

    @property
    def chat_prompt_ids(self) -> Sequence[int]:
        """Of the answer, in chat; of each choice in completions, whose pieces have them."""
        return self._prompt.token_ids if self._asked.token_ids and self._asked.chat else ()

    def _prompt_ids(self) -> Sequence[int]:
        return self._prompt.token_ids if self._asked.token_ids and not self._asked.chat else ()

    def of_prompt(self, choice: Choice) -> str | None:
        """JSON of vLLM's `prompt_logprobs`; None where it was not asked for."""
        if (width := self._asked.prompt_logprobs) is None:
            return None
        told = self._of_prompt(read_run(choice.prompt_logprobs))
        return prompt_logprobs(told, self._spelling, width=width)

    def _of_prompt(self, run: Logprobs) -> list[Told]:
        first, *rest = self._prompt.token_ids
        return [(first, None), *zip(rest, run.rows(), strict=False)]

    def _logprobs(self, choice: int, told: Iterable[Told]) -> str:
        if (width := self._asked.logprobs) is None:
            return "null"
        if self._asked.chat:
            return chat_logprobs(told, self._spelling)
        return completion_logprobs(told, self._spelling, self._places[choice], width=width)
