"""An output log with one reader, for tests that are about one."""

from __future__ import annotations

from headrace_gateway.request.generation import Event
from headrace_gateway.stream.output_log import OutputCursor, OutputLog


class ReadOutputLog(OutputLog):
    def __init__(
        self,
        *,
        choices: int,
        max_tokens: int,
        logprobs: bool = False,
        prompt_logprobs: int | None = None,
    ) -> None:
        super().__init__(
            choices=choices,
            max_tokens=max_tokens,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
        )
        self._reader = OutputCursor(self)

    def drain(self) -> list[Event]:
        return self._reader.drain()

    @property
    def over(self) -> bool:
        return self._reader.over

    def stop_reading(self, choice: int, tokens: int) -> None:
        """Its reader found a stop string, which ends the choice after so many tokens."""
        self._reader.stop(choice, tokens)
