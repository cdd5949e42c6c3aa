"""The ledger: what the clients saw and what was done to the mesh, an event a line, in order.

It is written as things happen and judged afterwards, from the file alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Self, get_args

from headrace.clock import Clock

UNREACHABLE = "unreachable"
"""Code of a request that no gateway answered."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    at_s: float
    model: str
    engine: str
    exact: bool
    """Whether the model promises equal output whatever its neighbours."""
    seed: int


@dataclass(frozen=True, slots=True)
class RequestSent:
    """A client sends a request. Streams are numbered by the ledger."""

    at_s: float
    stream: int
    ask: int
    door: str
    choices: int
    disturbed: bool
    """False: before the first fault, as the measure of what comes later."""


@dataclass(frozen=True, slots=True)
class StreamStarted:
    at_s: float
    stream: int
    request_id: str


@dataclass(frozen=True, slots=True)
class DeltaReceived:
    at_s: float
    stream: int
    choice: int
    text: str
    token_ids: list[int]
    first_index: int | None
    """None at doors that tell no tokens."""


@dataclass(frozen=True, slots=True)
class ChoiceFinished:
    at_s: float
    stream: int
    choice: int
    reason: str


@dataclass(frozen=True, slots=True)
class UsageReceived:
    """The usage that the mesh tells."""

    at_s: float
    stream: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class StreamFinished:
    """The good end."""

    at_s: float
    stream: int


@dataclass(frozen=True, slots=True)
class RequestRejected:
    """An error instead of an answer; `UNREACHABLE` is our word, all other codes are the mesh's."""

    at_s: float
    stream: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """An error at the end of a stream that had begun."""

    at_s: float
    stream: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StreamResumed:
    """The stream broke off, and the client came back for the rest of it."""

    at_s: float
    stream: int
    how: str


@dataclass(frozen=True, slots=True)
class ClientClosed:
    """The client itself closed the stream."""

    at_s: float
    stream: int


@dataclass(frozen=True, slots=True)
class StreamBroken:
    """The stream was over, or fell silent for good, and nobody had said so."""

    at_s: float
    stream: int
    how: str


@dataclass(frozen=True, slots=True)
class FaultInjected:
    at_s: float
    fault: int
    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class FaultRecovered:
    """What was struck is well again."""

    at_s: float
    fault: int


@dataclass(frozen=True, slots=True)
class RunEnded:
    """After the last stream: requests that the mesh still holds, though nobody waits."""

    at_s: float
    held: int


Event = (
    RunStarted
    | RequestSent
    | StreamStarted
    | DeltaReceived
    | ChoiceFinished
    | UsageReceived
    | StreamFinished
    | RequestRejected
    | StreamFailed
    | StreamResumed
    | ClientClosed
    | StreamBroken
    | FaultInjected
    | FaultRecovered
    | RunEnded
)
_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def to_line(event: Event) -> str:
    columns = {field.name: getattr(event, field.name) for field in fields(event)}
    return json.dumps({"event": type(event).__name__, **columns}, separators=(",", ":"))


def from_line(line: str) -> Event:
    columns = json.loads(line)
    return _KINDS[columns.pop("event")](**columns)


def read(path: Path) -> Iterator[Event]:
    with path.open(encoding="utf-8") as lines:
        yield from map(from_line, lines)


class EventLog:
    """Appends events to a new file. A context manager, or `close` it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._streams = 0

    @property
    def now_s(self) -> float:
        """Since the ledger was opened."""
        return round(self._clock.monotonic_s() - self._began_s, 4)

    def note(self, event: Event) -> None:
        self._file.write(to_line(event) + "\n")

    def next_stream(self) -> int:
        self._streams += 1
        return self._streams

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
