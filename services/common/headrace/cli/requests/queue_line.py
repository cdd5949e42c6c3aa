"""How a request waits, on a line that goes when its answer comes."""

from __future__ import annotations

from typing import TextIO

from headrace.v1.generation_pb2 import Queued, StreamGenerateResponse

_CLEAR = "\r\x1b[K"


class QueueLine:
    """Writes nothing where `out` is no terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown = False

    def see(self, event: StreamGenerateResponse) -> None:
        """Call with every event of a stream, before its text is printed."""
        if event.HasField("queued"):
            self._show(f"{_CLEAR}(waiting: {describe_wait(event.queued)})")
            self._shown = True
        elif self._shown and not event.HasField("started"):
            self.clear()

    def clear(self) -> None:
        """Also when the stream breaks."""
        if self._shown:
            self._show(_CLEAR)
            self._shown = False

    def _show(self, text: str) -> None:
        if self._out.isatty():
            self._out.write(text)
            self._out.flush()


def describe_wait(queued: Queued) -> str:
    ahead = f"{queued.position} ahead" if queued.position else "next"
    if not queued.HasField("estimated_wait"):
        return ahead
    return f"{ahead}, about {queued.estimated_wait.ToMilliseconds() / 1000:.1f} s"
