"""Requests that a gateway has released, or that another gateway reads."""

from __future__ import annotations

from dataclasses import replace

from headrace.bus import Bus
from headrace.rpc.delivery_secret import DeliverySecret
from headrace_gateway.request.generation import Input
from headrace_gateway.resume.outputs import RemoteOutput
from helpers.gateway_actors import leader, running_mesh, valid_request


async def test_a_request_that_a_stopping_gateway_has_released_is_not_unknown_to_it(
    bus: Bus,
) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        await gateway.mesh.admission.open(replace(valid_request("r1"), resumable=True))
        gateway.mesh.requests.release(gateway.open_request("r1"))
        answer = await boss.notify(fences={"r1": 5, "never heard of": 5})
        assert list(answer.unknown_request_ids) == ["never heard of"]
        assert not answer.points


async def test_vectors_are_not_sent_to_another_gateway(bus: Bus) -> None:
    async with running_mesh(bus) as gateway:
        vectors = replace(valid_request("r1"), prompt_ids=(), inputs=(Input((1, 2)),))
        await gateway.mesh.admission.open(vectors)
        remote = await RemoteOutput.reach(gateway.address, "r1", secret=DeliverySecret(None))
        assert not remote.record.HasField("rendering")
        assert gateway.open_request("r1").readers == 1
        await remote.abandon()
