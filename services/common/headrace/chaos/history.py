"""The event log of a chaos run: what clients received and which faults were injected, in order.

It is written as JSON lines while the run goes on, and judged afterwards from the file alone.

    {"event":"RunStarted","at_s":0.0,"model":"valley","engine":"transformers","exact":true,"seed":1}
    {"event":"RequestSent","at_s":0.1,"stream":1,"request":0,"api":"native","choices":1,...}
    {"event":"StreamStarted","at_s":0.2,"stream":1,"request_id":"6f0c"}
    {"event":"DeltaReceived","at_s":0.3,"stream":1,"choice":0,"text":"Once","token_ids":[7],...}
    {"event":"FaultInjected","at_s":0.4,"fault":1,"kind":"worker","target":"worker-valley-0"}
    {"event":"DeltaReceived","at_s":1.9,"stream":1,"choice":0,"text":" upon","token_ids":[9],...}
    {"event":"ChoiceFinished","at_s":1.9,"stream":1,"choice":0,"reason":"length"}
    {"event":"UsageReceived","at_s":1.9,"stream":1,"prompt_tokens":3,"output_tokens":2}
    {"event":"StreamFinished","at_s":1.9,"stream":1}
    {"event":"FaultRecovered","at_s":2.6,"fault":1}
    {"event":"RunEnded","at_s":9.0,"held":0}
    {"event":"UsageRowRead","at_s":9.1,"tenant":"headrace-chaos-0","request_id":"6f0c",...}
    {"event":"AccountsRead","at_s":9.1,"differences":[]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, dataclass_transform

from headrace.clock import Clock

UNREACHABLE = "unreachable"
"""Code of a request that no gateway answered; all other codes are the mesh's."""


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Event:
    """Base of all events. Every subclass is a frozen dataclass, and known by its name."""

    kinds: ClassVar[dict[str, type[Event]]] = {}

    at_s: float
    """Since the log was made."""

    def __init_subclass__(cls) -> None:
        Event.kinds[cls.__name__] = dataclass(frozen=True)(cls)


class RunStarted(Event):
    model: str
    engine: str
    exact: bool
    """Whether the model gives equal output in every batch."""
    seed: int


class StreamEvent(Event):
    stream: int
    """Numbered by the log."""


class RequestSent(StreamEvent):
    request: int
    """Number of the ChaosRequest."""
    api: str
    choices: int
    max_tokens: int
    """Of each choice."""
    disturbed: bool
    """False before the first fault: such a stream is the reference of later ones."""


class StreamStarted(StreamEvent):
    request_id: str
    """Of a row of a batch: <batch>_<line>."""


class DeltaReceived(StreamEvent):
    choice: int
    text: str
    token_ids: list[int]
    first_index: int | None
    """None from APIs without token ids."""


class ChoiceFinished(StreamEvent):
    choice: int
    reason: str


class UsageReceived(StreamEvent):
    prompt_tokens: int
    output_tokens: int


class StreamResumed(StreamEvent):
    """The stream broke off, and the client attached to the request again."""

    reason: str


class StreamEnd(StreamEvent):
    """Base of the events that end a stream."""


class StreamFinished(StreamEnd):
    """The stream ended as it should."""


class RequestRejected(StreamEnd):
    """An error came instead of a stream."""

    code: str
    message: str


class StreamFailed(StreamEnd):
    """An error ended a stream that had started."""

    code: str
    message: str


class ClientClosed(StreamEnd):
    """The client closed the stream."""


class StreamBroken(StreamEnd):
    """The stream ended, or stayed silent, without a finish or an error."""

    reason: str


class FaultInjected(Event):
    fault: int
    kind: str
    target: str


class FaultRecovered(Event):
    """The fault's target is ready again."""

    fault: int


class UsageRowRead(Event):
    """A row of usage of one of the run's tenants, read after the last stream."""

    tenant: str
    request_id: str
    """As in StreamStarted, whichever run of a batch's row it is."""
    billed: bool
    """False: another run of the same row of a batch is billed, or none."""
    code: int
    """google.rpc.Code."""
    input_tokens: int
    output_tokens: int


class AccountsRead(Event):
    """All rows have been read."""

    differences: list[str]
    """What rows, sums and records disagree about, as the mesh itself finds."""


class RunEnded(Event):
    held: int
    """Requests that the mesh still holds after the last stream."""


def read(path: Path) -> Iterator[Event]:
    """Yield the events of a log."""
    with path.open(encoding="utf-8") as lines:
        for columns in map(json.loads, lines):
            yield Event.kinds[columns.pop("event")](**columns)


class EventLog:
    """Writes events to a file, with times since it was made."""

    def __init__(self, file: IO[str], clock: Clock) -> None:
        self._file, self._clock = file, clock
        self._began_s = clock.monotonic_s()
        self._streams = 0
        self.started: set[str] = set()
        """Ids of the requests that have started."""

    @property
    def now_s(self) -> float:
        return round(self._clock.monotonic_s() - self._began_s, 4)

    def append(self, event: Event) -> None:
        if isinstance(event, StreamStarted) and event.request_id:
            self.started.add(event.request_id)
        columns = {"event": type(event).__name__, **vars(event)}
        self._file.write(json.dumps(columns, separators=(",", ":")) + "\n")

    def next_stream(self) -> int:
        """Return the number of a new stream, from 1."""
        self._streams += 1
        return self._streams
