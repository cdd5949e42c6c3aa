"""What a gateway says and gives of requests that are not, or not only, its own caller's."""

from __future__ import annotations

from dataclasses import replace

from headrace.bus import Bus
from headrace.internal.v1.attach_pb2_grpc import add_AttachServiceServicer_to_server
from headrace.rpc.server import bind, make_server
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.models.catalog import Catalog
from headrace_gateway.output.resumer import AnswerResumer
from headrace_gateway.request.generation import Input
from headrace_gateway.resume.attach_service import AttachService
from headrace_gateway.resume.remote import Remote
from helpers.gateway_actors import leader, running_mesh, valid_request


async def test_what_a_leaving_gateway_lets_go_of_is_not_unknown_to_it(bus: Bus) -> None:
    async with running_mesh(bus) as gateway, leader(bus) as boss:
        await gateway.mesh.admission.open(replace(valid_request("r1"), resumable=True))
        gateway.mesh.requests.release(gateway.open_request("r1"))
        answer = await boss.notify(fences={"r1": 5, "never heard of": 5})
        assert list(answer.unknown_request_ids) == ["never heard of"]
        assert not answer.points


async def test_vectors_are_left_to_who_asked_for_them(bus: Bus) -> None:
    async with running_mesh(bus) as gateway:
        mesh, server = gateway.mesh, make_server()
        resumer = AnswerResumer(Catalog(bus, GatewaySettings()), mesh.directory)
        add_AttachServiceServicer_to_server(AttachService(mesh.requests, resumer), server)
        port = bind(server, "127.0.0.1", 0)
        await server.start()
        vectors = replace(valid_request("r1"), prompt_ids=(), inputs=(Input((1, 2)),))
        await mesh.admission.open(vectors)
        remote = await Remote.reach(f"127.0.0.1:{port}", "r1")
        assert not remote.record.HasField("rendering")
        assert gateway.open_request("r1").readers == 1
        await remote.abandon()
        await server.stop(grace=0)
