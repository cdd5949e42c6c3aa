"""A gateway's port for the mesh, where workers and other gateways must show the secret."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from headrace.bus import Bus
from headrace.errors import GatewayUnreachable
from headrace.internal.v1.delivery_pb2 import DeliverRequest
from headrace.internal.v1.delivery_pb2_grpc import DeliveryServiceStub
from headrace.rpc.delivery_secret import HEADER, DeliverySecret, Metadata
from headrace_gateway.resume.outputs import RemoteOutput
from helpers.access_tables import write_secret
from helpers.eventually import eventually
from helpers.gateway_actors import WorkerActor, running_mesh

RIGHT, WRONG = ((HEADER, "right"),), ((HEADER, "wrong"),)
REREAD_WITHIN_S = 2.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_secret(tmp_path / "delivery", "right\n")


async def answer(address: str, metadata: Metadata) -> tuple[grpc.StatusCode, str]:
    """Open a stream as a worker, and end it; return its status."""
    async with grpc.aio.insecure_channel(address) as channel:
        messages = iter([DeliverRequest(worker_id="w")])
        call = DeliveryServiceStub(channel).Deliver(messages, metadata=metadata)
        return await call.code(), await call.details() or ""


@pytest.mark.parametrize(
    "metadata", [(), WRONG, ((HEADER, ""),), (*RIGHT, *WRONG), ((HEADER, "righ"),)]
)
async def test_a_stream_without_the_secret_is_refused(
    bus: Bus, file: Path, metadata: Metadata
) -> None:
    async with running_mesh(bus, delivery_secret_file=file) as gateway:
        code, details = await answer(gateway.address, metadata)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "need the same delivery_secret_file" in details
        assert "right" not in details
        assert (await answer(gateway.address, RIGHT))[0] is grpc.StatusCode.OK


async def test_another_gateway_reads_an_answer_with_the_secret_only(
    bus: Bus, file: Path, tmp_path: Path
) -> None:
    wrong = write_secret(tmp_path / "wrong", "wrong")
    async with running_mesh(bus, delivery_secret_file=file) as gateway:
        await gateway.open("r1")
        for refused in (None, wrong):
            with pytest.raises(GatewayUnreachable, match="no valid secret"):
                await RemoteOutput.reach(gateway.address, "r1", secret=DeliverySecret(refused))
        assert gateway.open_request("r1").readers == 1
        remote = await RemoteOutput.reach(gateway.address, "r1", secret=DeliverySecret(file))
        assert remote.record.request_id == "r1"
        await remote.abandon()


async def test_without_the_setting_no_secret_is_needed(bus: Bus) -> None:
    async with running_mesh(bus) as gateway:
        assert (await answer(gateway.address, ()))[0] is grpc.StatusCode.OK
        assert (await answer(gateway.address, WRONG))[0] is grpc.StatusCode.OK


async def test_a_changed_secret_counts_for_new_streams_and_old_ones_live_on(
    bus: Bus, file: Path
) -> None:
    async with (
        running_mesh(bus, delivery_secret_file=file) as gateway,
        AsyncExitStack() as stack,
    ):
        old = WorkerActor(gateway.address, "w", RIGHT)
        stack.push_async_callback(old.vanish)
        await gateway.open("r1")
        slot = await old.start("r1", attempt=1)
        await old.run_on(slot, first=0, ids=[7])
        await eventually(lambda: gateway.open_request("r1").output.output_tokens == 1)
        write_secret(file, "changed")

        async def is_taken_up() -> bool:
            code, _ = await answer(gateway.address, ((HEADER, "changed"),))
            return code is grpc.StatusCode.OK

        await eventually(is_taken_up, within_s=REREAD_WITHIN_S)
        assert (await answer(gateway.address, RIGHT))[0] is grpc.StatusCode.UNAUTHENTICATED
        await old.run_on(slot, first=1, ids=[8])
        await eventually(lambda: gateway.open_request("r1").output.output_tokens == 2)
