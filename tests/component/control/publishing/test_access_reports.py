"""What gateways report is stored once, however often it is reported."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from headrace.admin.v1 import keys_pb2 as pb
from headrace.bus.jetstream import connect
from headrace.bus.subjects import ACCESS_REPORTS
from headrace.clock import SystemClock
from headrace.errors import InvalidApiKey
from headrace.internal.v1.access_pb2 import AccessReport, FailedAttempts, KeyUse
from headrace.testing.nats_server import NatsServer
from headrace_control.store import Store
from helpers.control_api import ControlApi, refused


async def test_uses_and_failed_attempts_are_stored_once(
    admin: ControlApi, nats: NatsServer, tmp_path: Path
) -> None:
    made = await admin.create_key("acme")
    now_ms = int(SystemClock().unix_s() * 1000)
    report = AccessReport(
        gateway_id="g1",
        sequence=1,
        uses=[
            KeyUse(
                key_id=made.key.name.rpartition("/")[2],
                last_used_ms=now_ms,
                client="192.0.2.7",
            )
        ],
        failures=[
            FailedAttempts(
                client="203.0.113.9", reason="unknown", count=7, first_ms=now_ms, last_ms=now_ms
            )
        ],
    )
    bus = await connect(nats.url, name="g1", replicas=None)
    for _ in range(3):
        await bus.request(ACCESS_REPORTS, report.SerializeToString(), timeout_s=5)
    await bus.request(ACCESS_REPORTS, b"\xff", timeout_s=5)
    await bus.close()
    seen = await admin.keys.GetKey(pb.GetKeyRequest(name=made.key.name))
    assert seen.last_use_client == "192.0.2.7"
    assert seen.last_use_time.ToMilliseconds() == now_ms
    store = await Store.open(f"sqlite:///{tmp_path / 'control.db'}")
    events = (await store.audit.list()).items
    await store.close()
    failed = [each for each in events if each.action == "access.failed"]
    assert [json.loads(each.details)["attempts"] for each in failed] == [7]
    assert json.loads(failed[0].details)["client"] == "203.0.113.9"


async def test_a_failed_attempt_at_control_itself_is_reported(
    admin: ControlApi, tmp_path: Path
) -> None:
    made = await admin.create_key("acme")
    forged = made.secret[:20] + ("A" if made.secret[20] != "A" else "B") + made.secret[21:]
    async with ControlApi(admin.port, forged) as attacker:
        call = attacker.keys.GetKey(pb.GetKeyRequest(name=made.key.name))
        assert isinstance(await refused(call), InvalidApiKey)
    store = await Store.open(f"sqlite:///{tmp_path / 'control.db'}")
    async with asyncio.timeout(15):
        while "access.failed" not in {e.action for e in (await store.audit.list()).items}:
            await asyncio.sleep(0.2)
    await store.close()
