"""A stream is read over any order of losses: each token once, in order, and unchanged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.client.calls import generation
from headrace.client.calls.generation import GenerationCalls, GenerationReader
from headrace.client.calls.retries import NO_RETRIES, Retries
from headrace.client.calls.scripts import END, Close, Emit, Next, Open, Run, Sleep
from headrace.client.unreachable import ConnectionLost
from headrace.errors import (
    GatewayDraining,
    HeadraceError,
    InternalError,
    LaneFull,
    NoWorker,
    PatienceExhausted,
    RequestCancelled,
    RequestExists,
    RequestNotFound,
)
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import FINISH_REASON_LENGTH
from headrace.v1.generation_pb2 import Finish, GenerateRequest, StreamGenerateResponse
from headrace.v1.requests_pb2 import AttachRequestRequest

Event = StreamGenerateResponse
CALLS = GenerationCalls(
    cast(Any, SimpleNamespace(StreamGenerate="begin")),
    cast(Any, SimpleNamespace(AttachRequest="attach")),
)
OUTPUT = [[10, 11, 12, 13, 14], [20, 21, 22]]
FAULTS = ("", "lost", "envoy", "draining")
"""What happens to a stream: nothing, its gateway dies, Envoy dies, or its gateway stops."""


@dataclass
class Mesh:
    """Answers two choices; streams break as `faults` say, each after so many events."""

    faults: Iterator[tuple[str, int]]
    outputs: list[list[list[int]]] = field(default_factory=lambda: [OUTPUT])
    """Of the first run, and of later ones."""
    runs: dict[str, list[list[int]]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    end: HeadraceError | None = None
    """What requests end with before their first token."""
    opens: int = 0

    def opened(self, method: object, request: Any) -> Iterator[Event]:
        name = request.request_id
        self.opens += 1
        if method == "begin":
            if name in self.runs:
                raise RequestExists(f"{name} exists")
            self.runs[name] = self.outputs[min(len(self.runs), len(self.outputs) - 1)]
            yield from self._broken(name, "")
        elif name not in self.runs:
            raise RequestNotFound(f"{name} is unknown")
        else:
            yield from self._broken(name, request.after)

    def _broken(self, name: str, after: str) -> Iterator[Event]:
        fault, events = next(self.faults, ("", 0))
        for number, event in enumerate(self._events(name, after)):
            if fault and number == events:
                self.gone |= {name} if fault == "envoy" else set()
                raise GatewayDraining("stops") if fault == "draining" else ConnectionLost("lost")
            yield event

    def _events(self, name: str, after: str) -> Iterator[Event]:
        offsets = after.split(".") if after else ["0", "0"]
        event = Event()
        event.started.request_id, event.started.seed = name, 7
        yield event
        if name in self.gone:
            error = to_status(RequestCancelled("its client disconnected"))
            yield Event(finish=Finish(error=error))
            return
        if self.end is not None:
            yield Event(finish=Finish(error=to_status(self.end)))
            return
        for choice, (offset, ids) in enumerate(zip(offsets, self.runs[name], strict=True)):
            if offset.endswith("f"):
                continue
            for index in range(int(offset), len(ids)):
                event = Event()
                event.delta.choice, event.delta.first_index = choice, index
                event.delta.token_ids.append(ids[index])
                if index == len(ids) - 1:
                    event.delta.finish_reason = FINISH_REASON_LENGTH
                yield event
        yield Event(finish=Finish())


def read(mesh: Mesh, reader: GenerationReader) -> list[Event]:
    """Perform a reader's script on the mesh, without waiting."""
    run, emitted = Run(reader.read()), []
    while (effect := run.next_effect()) is not None:
        match effect:
            case Emit(item):
                emitted.append(item)
            case Open(call):
                run.reply = mesh.opened(cast(Any, call).method, cast(Any, call).request)
            case Next(stream):
                with run.performing(effect):
                    run.reply = next(stream, END)
            case Sleep() | Close():
                pass
    return emitted


def sought(name: str = "mine") -> GenerateRequest:
    return GenerateRequest(model="m", prompt="x", n=2, request_id=name)


def ids_of(events: list[Event]) -> list[list[int]]:
    """Token ids by choice, whose indices have neither a gap nor a repeat."""
    ids: list[list[int]] = [[], []]
    for event in events:
        if event.HasField("delta"):
            assert event.delta.first_index == len(ids[event.delta.choice])
            ids[event.delta.choice] += event.delta.token_ids
    return ids


@given(st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 9)), max_size=6))
@example([*[("draining", 0)] * 3, ("lost", 0), ("envoy", 0)])
def test_every_token_comes_once_over_any_losses(faults: list[tuple[str, int]]) -> None:
    # Before the first event each loss may take two: that call, and one that finds that it exists.
    events = read(Mesh(iter(faults)), GenerationReader(CALLS, sought(), Retries(attempts=13)))
    assert ids_of(events) == OUTPUT
    assert [event.WhichOneof("event") for event in events].count("started") == 1
    assert events[-1].HasField("finish")


def test_a_second_run_that_differs_is_an_error_and_is_not_handed_out() -> None:
    other = [[10, 99, 12, 13, 14], OUTPUT[1]]
    mesh = Mesh(iter([("envoy", 4)]), outputs=[OUTPUT, other])
    with pytest.raises(InternalError, match="differs from the first after 1 tokens"):
        read(mesh, GenerationReader(CALLS, sought(), Retries()))


@pytest.mark.parametrize("fault", [("lost", 0), ("lost", 3)])
def test_a_loss_is_raised_where_nothing_may_be_sent_again(fault: tuple[str, int]) -> None:
    reader = GenerationReader(CALLS, sought(), NO_RETRIES, reattach=False)
    with pytest.raises(ConnectionLost) as raised:
        read(Mesh(iter([fault])), reader)
    assert raised.value.request_id == "mine"


def test_a_call_without_an_id_is_not_sent_again_after_a_loss() -> None:
    with pytest.raises(ConnectionLost):
        read(Mesh(iter([("lost", 0)])), GenerationReader(CALLS, sought(""), Retries()))


def test_a_request_that_others_cancel_is_not_run_again() -> None:
    mesh = Mesh(iter([]), gone={"mine"})
    with pytest.raises(RequestCancelled):
        read(mesh, GenerationReader(CALLS, sought(), Retries()))
    assert list(mesh.runs) == ["mine"]


@pytest.mark.parametrize("error", [PatienceExhausted("late"), NoWorker("none")])
def test_a_request_that_ended_for_want_of_capacity_raises_it_at_once(error: HeadraceError) -> None:
    mesh = Mesh(iter([]), end=error)
    with pytest.raises(type(error)):
        read(mesh, GenerationReader(CALLS, sought(), Retries()))
    assert mesh.opens == 1


def test_a_stream_that_only_ever_starts_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = itertools.count(1.0, 5.0)
    monkeypatch.setattr(generation, "time", SimpleNamespace(monotonic=lambda: next(now_s)))
    mesh = Mesh(iter([("lost", 1)] * 30))
    with pytest.raises(ConnectionLost):
        read(mesh, GenerationReader(CALLS, sought(), Retries()))


@given(st.lists(st.tuples(st.sampled_from(["lost", "draining"]), st.integers(0, 9)), max_size=6))
def test_what_is_attached_to_from_a_position_has_no_token_before_it(
    faults: list[tuple[str, int]],
) -> None:
    attached = AttachRequestRequest(request_id="mine", after="2.1")
    mesh = Mesh(iter(faults), runs={"mine": OUTPUT})
    events = read(mesh, GenerationReader(CALLS, attached, Retries(attempts=13)))
    deltas = [event.delta for event in events if event.HasField("delta")]
    read_ids = [[n for each in deltas if each.choice == k for n in each.token_ids] for k in (0, 1)]
    assert read_ids == [OUTPUT[0][2:], OUTPUT[1][1:]]


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_request_runs_no_more_often_than_it_may_be_sent(attempts: int) -> None:
    mesh = Mesh(iter([("envoy", 4)] * 99))
    with pytest.raises(RequestCancelled):
        read(mesh, GenerationReader(CALLS, sought(), Retries(attempts=attempts)))
    assert len(mesh.runs) == attempts


@pytest.mark.parametrize(
    ("error", "attempt", "elapsed_s", "repeatable", "pause_s"),
    [
        (LaneFull("lane", retry_after_s=2.0), 1, 0.0, False, 2.0),
        (LaneFull("lane", retry_after_s=2.0), 4, 0.0, True, None),
        (LaneFull("lane", retry_after_s=30.0), 2, 31.0, True, None),
        (ConnectionLost("lost"), 1, 0.0, True, 0.25),
        (ConnectionLost("lost"), 3, 0.0, True, 1.0),
        (ConnectionLost("lost"), 1, 0.0, False, None),
        (RequestCancelled("ended"), 1, 0.0, True, None),
        (InternalError("broken"), 1, 0.0, True, None),
    ],
)
def test_a_pause_is_what_the_mesh_says_within_bounds(
    error: HeadraceError,
    attempt: int,
    *,
    elapsed_s: float,
    repeatable: bool,
    pause_s: float | None,
) -> None:
    found = Retries().pause_s(
        error, attempt=attempt, elapsed_s=elapsed_s, repeatable=repeatable, drawn=1.0
    )
    assert found == pause_s
