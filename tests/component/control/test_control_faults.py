"""What callers of control see while its broker is away, and when peppers change."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.admin.v1 import keys_pb2 as pb
from headrace.bus.jetstream import connect
from headrace.bus.subjects import KEYS_TABLE
from headrace.testing.nats_server import NatsServer
from helpers.control_api import ControlApi
from helpers.control_process import add_pepper, control_process, serving, write_peppers
from helpers.eventually import eventually


async def test_a_change_without_a_broker_is_answered_and_published_later(
    nats: NatsServer, tmp_path: Path
) -> None:
    peppers = write_peppers(tmp_path / "peppers", "a")
    async with control_process(
        tmp_path, nats.url, peppers_file=peppers, publish_wait_s=0.5, lease_ttl_s=5
    ) as running:
        await serving(running)
        async with ControlApi(running.ports["grpc"]) as api:
            await nats.kill()
            made = await api.create_key("acme")
        await nats.start()
        bus = await connect(nats.url, name="watcher", replicas=None)

        async def is_published() -> bool:
            return made.key.name.rpartition("/")[2] in await bus.rows(KEYS_TABLE)

        await eventually(is_published, within_s=10)
        await bus.close()
    assert "api.not_published_yet" in (tmp_path / "control.log").read_text()


@pytest.mark.slow
async def test_a_used_keys_digest_is_renewed_under_a_new_pepper(
    nats: NatsServer, tmp_path: Path
) -> None:
    file = write_peppers(tmp_path / "peppers", "a")
    async with control_process(
        tmp_path,
        nats.url,
        auth="keys",
        peppers_file=file,
        bootstrap_keys_dir=tmp_path,
        pepper_settle_s=1,
    ) as running:
        await serving(running)
        key = (tmp_path / "admin.key").read_text().strip()
        async with ControlApi(running.ports["grpc"], key) as admin:
            await renewed_when_used(admin, file)


async def renewed_when_used(admin: ControlApi, file: Path) -> None:
    used, unused = await admin.create_key("acme"), await admin.create_key("acme")
    add_pepper(file, "b")

    async def has_old_pepper(name: str) -> bool:
        return bool((await admin.keys.GetKey(pb.GetKeyRequest(name=name))).old_pepper)

    async def is_noticed() -> bool:
        return await has_old_pepper(used.key.name)

    async def is_renewed() -> bool:
        async with ControlApi(admin.port, used.secret) as user:
            await user.keys.GetKey(pb.GetKeyRequest(name=used.key.name))
        return not await has_old_pepper(used.key.name)

    await eventually(is_noticed, within_s=10)
    await eventually(is_renewed, within_s=40)
    assert await has_old_pepper(unused.key.name)
