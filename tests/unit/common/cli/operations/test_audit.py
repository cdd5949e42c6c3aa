"""An exported audit is checked line by line, without the process that wrote it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from headrace.cli.operations.audit import FIRST_HASH, check_chain
from headrace.supervisor.state.failures import MeshError
from headrace_control.base.audit_hash import event_fields, hash_of
from headrace_control.base.records import AuditEvent

BEGIN = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def events(count: int) -> list[AuditEvent]:
    made: list[AuditEvent] = []
    for number in range(1, count + 1):
        event = AuditEvent(
            sequence=number,
            time=BEGIN + timedelta(milliseconds=number),
            action="keys.create",
            resource=f"tenants/ä/keys/{number}",
            tenant="ä",
            actor="people/8f3c",
            client="10.1.2.3",
            details='{"scopes": ["generate"]}',
            previous_hash=made[-1].hash if made else FIRST_HASH,
            hash="",
        )
        made.append(replace(event, hash=hash_of(event)))
    return made


def lines(exported: list[AuditEvent]) -> io.StringIO:
    return io.StringIO("".join(f"{json.dumps(event_fields(each))}\n" for each in exported))


def test_a_whole_chain_is_whole_from_its_first_event_or_from_a_known_one() -> None:
    whole = events(5)
    assert check_chain(lines(whole)) == (5, whole[-1].hash)
    assert check_chain(lines(whole[2:])) == (3, whole[-1].hash)
    assert check_chain(lines(whole[2:]), whole[1].hash) == (3, whole[-1].hash)
    assert check_chain(lines([])) == (0, FIRST_HASH)


def test_every_change_of_it_shows() -> None:
    whole = events(5)
    changed = [*whole[:2], replace(whole[2], actor="people/other"), *whole[3:]]
    with pytest.raises(MeshError, match=r"line 3: event 3, or one before it, was changed"):
        check_chain(lines(changed))
    with pytest.raises(MeshError, match=r"line 3: event 4 follows event 2; some are missing"):
        check_chain(lines([*whole[:2], *whole[3:]]))
    made_up = replace(whole[2], actor="people/other")
    made_up = replace(made_up, hash=hash_of(made_up))
    with pytest.raises(MeshError, match=r"line 4: event 4, or one before it, was changed"):
        check_chain(lines([*whole[:2], made_up, *whole[3:]]))
    with pytest.raises(MeshError, match=r"line 1: event 3, or one before it, was changed"):
        check_chain(lines(whole[2:]), whole[0].hash)
    with pytest.raises(MeshError, match="line 1 is no audit event"):
        check_chain(io.StringIO("[]\n"))
