"""Requests are located, and their output is opened, wherever they are."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from headrace.bus import Bus
from headrace.errors import BrokerUnavailable, GatewayUnreachable, InvalidRequest
from headrace.internal.v1.reports_pb2 import LocateResponse, ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord, Sampling
from headrace.rpc.status import to_status
from headrace.v1 import common_pb2, requests_pb2
from headrace_gateway.request.generation import ChoiceEnded, Failed, Generation, Tokens
from headrace_gateway.resume.location import Location
from helpers.eventually import eventually
from helpers.gateway_actors import (
    MODEL,
    RunningMesh,
    leader,
    read,
    read_some,
    running_mesh,
    worker,
)

LENGTH = common_pb2.FINISH_REASON_LENGTH
NOWHERE = "127.0.0.1:1"


def accept(_: Location) -> None:
    """Every request may be opened."""


def refuse(_: Location) -> None:
    raise InvalidRequest("other parameters", field="Idempotency-Key")


def held_by(gateway_id: str, address: str = NOWHERE) -> LocateResponse:
    """Return a leader's answer: the request "r1", held by this gateway, with two tokens so far."""
    record = RequestRecord(
        request_id="r1",
        model=MODEL,
        priority=common_pb2.PRIORITY_STANDARD,
        sampling=Sampling(max_tokens=100),
        attempt=5,
        held_since_attempt=6,
        gateway_id=gateway_id,
        delivery_address=address,
    )
    record.deadline.GetCurrentTime()
    record.deadline.seconds += 60
    record.progress.add(output_ids=[7, 8])
    return LocateResponse(found=True, record=record)


async def opened(gateway: RunningMesh) -> Generation:
    async with asyncio.timeout(20):
        return await gateway.mesh.directory.open("r1", accept)


async def test_a_finished_request_is_read_from_its_stored_result(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        generation = await gateway.open("r1")
        choice = common_pb2.Choice(token_ids=[7, 8], finish_reason=LENGTH)
        await generation.settle(common_pb2.RequestOutcome(choices=[choice]))
        await eventually(lambda: boss.has_settled(1))
        location = await gateway.mesh.directory.locate("r1")
        assert location.status().state == requests_pb2.REQUEST_STATE_ENDED
        stored = await opened(gateway)
        assert await read(stored) == [Tokens(0, 0, [7, 8]), ChoiceEnded(0, LENGTH)]


async def test_a_request_of_another_gateway_is_read_there(bus: Bus) -> None:
    async with (
        running_mesh(bus) as gateway,
        running_mesh(bus, "other") as other,
        leader(bus) as boss,
        worker(other.address) as w1,
    ):
        record = (await other.open("r1")).record
        boss.knows["r1"] = held_by("other", other.address)
        slot = await w1.start("r1", attempt=1)
        await w1.run_on(slot, first=0, ids=[70, 71])
        remote = await opened(gateway)
        assert remote.record == record
        assert await read_some(remote, tokens=2) == [70, 71]
        await remote.abandon()
        assert boss.unreachable == []


async def test_a_request_of_an_unreachable_gateway_is_taken_over_once_its_leader_assigns_it(
    bus: Bus,
) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss, leader(bus, "orphan"):
        boss.knows["r1"] = held_by("dead")
        opening = asyncio.create_task(opened(gateway))
        await eventually(lambda: "dead" in boss.unreachable)
        boss.knows["r1"] = LocateResponse(found=True, pending=True)
        assert not opening.done()
        boss.knows["r1"] = held_by("gw")
        reader = await opening
        assert gateway.open_request("r1").record == reader.record
        assert await read_some(reader, tokens=2) == [7, 8]


class LateResults:
    """A bus on which the first look-up finds no result: it is stored only after it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.lookups = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def get_result(self, request_id: str) -> bytes | None:
        self.lookups += 1
        return None if self.lookups == 1 else await self._bus.get_result(request_id)


async def test_a_request_that_has_ended_meanwhile_is_settled_and_not_taken_over(bus: Bus) -> None:
    """Its former leader stored the end, and may have published what it has used."""
    late = cast(Bus, LateResults(bus))
    async with running_mesh(late) as gateway, leader(bus) as boss, leader(bus, "orphan"):
        boss.knows["r1"] = held_by("gw")
        error = to_status(BrokerUnavailable("it was given up", retry_after_s=1.0))
        stored = ResultRecord(request_id="r1", request=boss.knows["r1"].record)
        stored.outcome.error.CopyFrom(error)
        stored.outcome.usage.output_tokens = 2
        await bus.put_result("r1", stored.SerializeToString())
        (failed,) = await read(await opened(gateway))
        assert isinstance(failed, Failed)
        await eventually(lambda: boss.has_settled(1))
        assert len(gateway.mesh.requests) == 0


async def test_a_takeover_that_is_not_confirmed_is_tried_again(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss, leader(bus, "orphan"):
        boss.knows["r1"], boss.unconfirmed = held_by("gw"), 1
        reader = await opened(gateway)
        assert boss.unconfirmed == 0
        assert gateway.open_request("r1").readers == 1
        assert await read_some(reader, tokens=2) == [7, 8]


async def test_a_gateway_that_stays_unreachable_is_an_error_after_a_while(bus: Bus) -> None:
    async with (
        running_mesh(bus, attach_wait_s=0.5) as gateway,
        leader(bus) as boss,
        leader(bus, "orphan"),
    ):
        boss.knows["r1"] = held_by("dead")
        with pytest.raises(GatewayUnreachable, match="r1 cannot be reached"):
            await opened(gateway)
        assert len(gateway.mesh.requests) == 0


async def test_a_request_that_is_not_accepted_is_not_opened(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss, leader(bus, "orphan"):
        boss.knows["r1"] = held_by("gw")
        with pytest.raises(InvalidRequest, match="other parameters"):
            await gateway.mesh.directory.open("r1", refuse)
        assert len(gateway.mesh.requests) == 0


async def test_a_gateway_that_knows_no_models_yet_does_not_report_a_request_as_unknown(
    bus: Bus,
) -> None:
    async with running_mesh(bus, models=None) as gateway, leader(bus) as boss:
        boss.knows["r1"] = held_by("other")
        with pytest.raises(GatewayUnreachable, match="no scheduler knows yet"):
            await gateway.mesh.directory.locate("r1")
