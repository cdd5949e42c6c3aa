"""What a call does, step by step, for both clients: a script names each effect and gets its reply.

Scripts decide and wait for nothing; `links` performs their effects, on threads or on an event loop.

    script                                   link
    yield Send(call)                         sends it; replies with the answer, or throws the error
    yield Sleep(0.25)                        waits
    stream = yield Open(call)                opens a stream
    item = yield Next(stream)                replies with its next item, or END
    yield Emit(piece)                        hands it to the caller, who may stop there
    yield Close(stream)                      cancels what is left of it
    return answer
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from google.protobuf.message import Message

from headrace.client.calls.retries import Retries
from headrace.errors import HeadraceError

T = TypeVar("T")
SILENCE_S = 60.0
"""Longest time in which nothing of a REST body or answer comes, where no model is waited for."""


class End(Enum):
    END = "END"


END = End.END
"""In place of the next item of a stream that has ended."""


@dataclass(frozen=True, slots=True)
class GrpcCall:
    """A call of a stub's method."""

    method: Callable[..., Any]
    request: Message
    timeout_s: float | None = None
    repeatable: bool = True
    """It may be sent again where it may have arrived; the same of `RestCall`."""

    @property
    def request_id(self) -> str:
        """As the caller chose it; empty: there is none."""
        return str(getattr(self.request, "request_id", ""))


class Read(Enum):
    """What an answer of REST is read as."""

    JSON = "json"
    BYTES = "bytes"
    EVENTS = "events"
    """A stream of the dicts in server-sent events."""
    LINES = "lines"
    """A stream of bytes without the end of the line."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A form with one file."""

    name: str
    content: bytes | Path
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RestCall:
    """A call of a path below the URL of the mesh."""

    method: str
    path: str
    json: Any = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    upload: Upload | None = None
    read: Read = Read.JSON
    silence_s: float | None = SILENCE_S
    repeatable: bool = True

    @property
    def request_id(self) -> str:
        return ""


Call = GrpcCall | RestCall


@dataclass(frozen=True, slots=True)
class Send:
    """Reply: the answer, a message or what `RestCall.read` says."""

    call: Call


@dataclass(frozen=True, slots=True)
class Open:
    """Reply: the stream, for the next two."""

    call: Call


@dataclass(frozen=True, slots=True)
class Next:
    stream: Any


@dataclass(frozen=True, slots=True)
class Close:
    stream: Any


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    item: Any


Effect = Send | Open | Next | Close | Sleep | Emit
Script = Generator[Effect, Any, T]


class Run(Generic[T]):
    """One run of a script."""

    def __init__(self, script: Script[T]) -> None:
        self._script = script
        self.reply: Any = None
        """Of the last effect; to be set before `next_effect`."""
        self._result: list[T] = []
        self._error: HeadraceError | None = None

    def next_effect(self) -> Effect | None:
        """Return what is to be done next; None: the script has returned."""
        error, self._error, reply, self.reply = self._error, None, self.reply, None
        try:
            return self._script.send(reply) if error is None else self._script.throw(error)
        except StopIteration as end:
            self._result.append(end.value)
            return None

    @contextmanager
    def performing(self, effect: Effect) -> Iterator[None]:
        """Keep an error for the script. The request that it is of, if it has an id, is named."""
        try:
            yield
        except HeadraceError as error:
            if isinstance(effect, Send | Open):
                error.request_id = error.request_id or effect.call.request_id
            self._error = error

    @property
    def result(self) -> T:
        return self._result[0]


class Attempts:
    """Counts the attempts of one call, and says when the next may begin."""

    def __init__(self, retries: Retries) -> None:
        self._retries, self._begun_s, self.number = retries, time.monotonic(), 1

    def pause_s(self, error: HeadraceError, *, repeatable: bool) -> float:
        """Return the pause before the next attempt.

        Raises:
            HeadraceError: the error, if there is no other attempt.
        """
        pause_s = self._retries.pause_s(
            error,
            attempt=self.number,
            elapsed_s=time.monotonic() - self._begun_s,
            repeatable=repeatable,
            drawn=random.random(),
        )
        if pause_s is None:
            raise error
        self.number += 1
        return pause_s

    def count(self, error: HeadraceError) -> None:
        """Begin another attempt because of this error, if there is one left; else raise it."""
        if self.number >= self._retries.attempts:
            raise error
        self.number += 1


def sent(call: Call, retries: Retries) -> Script[Any]:
    """Send a call, again where that may help; return its answer."""
    attempts = Attempts(retries)
    while True:
        try:
            return (yield Send(call))
        except HeadraceError as error:
            pause_s = attempts.pause_s(error, repeatable=call.repeatable)
        yield Sleep(pause_s)


def read_all(call: Call, retries: Retries, read: Callable[[Any], Any]) -> Script[None]:
    """Emit what `read` makes of the items of a stream that is the same each time.

    What was read of one that broke off is left out of the next.
    """
    attempts, emitted = Attempts(retries), 0
    while True:
        stream = None
        try:
            stream = yield Open(call)
            for number in itertools.count():
                if (item := (yield Next(stream))) is END:
                    return
                if number >= emitted:
                    emitted += 1
                    yield Emit(read(item))
        except HeadraceError as error:
            pause_s = attempts.pause_s(error, repeatable=call.repeatable)
        if stream is not None:
            yield Close(stream)
        yield Sleep(pause_s)


def then(script: Script[Any], read: Callable[[Any], T]) -> Script[T]:
    """Return what `read` makes of the script's result."""
    return read((yield from script))


def collected(script: Script[T], take: Callable[[Any], object]) -> Script[T]:
    """Hand what the script emits to `take`, and do all else that it says."""
    reply: Any = None
    error: HeadraceError | None = None
    while True:
        try:
            effect = script.send(reply) if error is None else script.throw(error)
        except StopIteration as end:
            return cast(T, end.value)
        reply = error = None
        if isinstance(effect, Emit):
            take(effect.item)
            continue
        try:
            reply = yield effect
        except HeadraceError as failed:
            error = failed
