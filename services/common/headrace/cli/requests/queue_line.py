"""A terminal line that shows a request's place in the queue until its output begins."""

from __future__ import annotations

from typing import TextIO

from headrace.v1.generation_pb2 import Queued, StreamGenerateResponse

_CLEAR = "\r\x1b[K"


class QueueLine:
    """Writes nothing where `out` is not a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_shown = False

    def update(self, event: StreamGenerateResponse) -> None:
        """Take account of an event of the stream; call it before printing the event's text."""
        if event.HasField("queued"):
            self._write(f"{_CLEAR}(waiting: {describe_wait(event.queued)})")
            self._is_shown = True
        elif not event.HasField("started"):
            self.clear()

    def clear(self) -> None:
        """Remove the line; call it also when the stream fails."""
        if self._is_shown:
            self._write(_CLEAR)
            self._is_shown = False

    def _write(self, text: str) -> None:
        if self._out.isatty():
            self._out.write(text)
            self._out.flush()


def describe_wait(queued: Queued) -> str:
    ahead = f"{queued.position} ahead" if queued.position else "next"
    if not queued.HasField("estimated_wait"):
        return ahead
    return f"{ahead}, about {queued.estimated_wait.ToMilliseconds() / 1000:.1f} s"
