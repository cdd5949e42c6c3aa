"""A relay with one reader, for tests that are about one."""

from __future__ import annotations

from headrace_gateway.request.generation import Event
from headrace_gateway.stream.output_log import NOTHING, LogprobsRequest, OutputLog


class ReadOutputLog(OutputLog):
    def __init__(
        self, *, choices: int, max_tokens: int, logprobs_request: LogprobsRequest = NOTHING
    ) -> None:
        super().__init__(choices=choices, max_tokens=max_tokens, logprobs_request=logprobs_request)
        self._reader = self.reading()

    def drain(self) -> list[Event]:
        return self._reader.drain()

    @property
    def over(self) -> bool:
        return self._reader.over

    def stop_reading(self, choice: int) -> None:
        """Its reader found a stop string."""
        self._reader.stop(choice)
