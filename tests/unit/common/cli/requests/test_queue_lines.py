"""How commands show queues."""

from __future__ import annotations

import io
from dataclasses import replace

from headrace.cli.admin.lanes import LaneRow, on_change
from headrace.cli.requests.queue_line import QueueLine
from headrace.v1.generation_pb2 import Delta, Queued, Started, StreamGenerateResponse

ROW = LaneRow("valley", "standard", 2, 1, 512, 0.5, None, 1, "scheduler-0", "mj75huc2jgqy")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def events() -> list[StreamGenerateResponse]:
    queued = Queued(position=2)
    known = Queued(position=0)
    known.estimated_wait.FromMilliseconds(3400)
    return [
        StreamGenerateResponse(started=Started()),
        StreamGenerateResponse(queued=queued),
        StreamGenerateResponse(queued=known),
        StreamGenerateResponse(delta=Delta(text="a")),
        StreamGenerateResponse(delta=Delta(text="b")),
    ]


def test_the_queue_is_shown_on_a_terminal_until_the_answer_comes() -> None:
    out = Terminal()
    line = QueueLine(out)
    for event in events():
        line.update(event)
    shown = [part for part in out.getvalue().split("\r\x1b[K") if part]
    assert shown == ["(waiting: 2 ahead)", "(waiting: next, about 3.4 s)"]
    assert out.getvalue().endswith("\r\x1b[K"), "and it is gone then"


def test_nothing_is_written_to_a_pipe() -> None:
    out = io.StringIO()
    line = QueueLine(out)
    for event in events():
        line.update(event)
    assert out.getvalue() == ""


def test_a_watch_shows_changes_but_not_that_time_passes() -> None:
    shown: list[list[LaneRow]] = []
    update = on_change(lambda _, changed: shown.append(changed))
    bulk = replace(ROW, priority="bulk")
    update([ROW, bulk])
    update([replace(ROW, oldest_wait_s=0.9, estimated_wait_s=1.0), bulk])
    busier = replace(ROW, waiting=3)
    update([busier, bulk])
    update([busier])
    assert shown == [[ROW, bulk], [busier], []]
    assert "no worker" in str(replace(ROW, workers=0))
