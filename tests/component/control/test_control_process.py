"""`python -m headrace_control`: waits for what it needs, is active alone, stops at a signal."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

from headrace.auth.keys import key_id_of
from headrace.bus.jetstream import connect
from headrace.bus.subjects import KEYS_TABLE, TABLE_STAMP, TENANTS_TABLE
from headrace.internal.v1.access_pb2 import KeyRow
from headrace.testing.nats_server import NatsServer
from helpers.control_process import control_process, readiness, serving, write_peppers
from helpers.eventually import eventually


async def test_the_first_keys_are_written_once_and_published(
    nats: NatsServer, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "auth": "keys",
        "peppers_file": write_peppers(tmp_path / "peppers", "a"),
        "bootstrap_keys_dir": tmp_path / "state",
    }
    async with control_process(tmp_path, nats.url, **options) as running:
        await serving(running)
        written = {name: tmp_path / "state" / name for name in ("admin.key", "cli.key")}
        keys = {name: file.read_text().strip() for name, file in written.items()}
        assert [stat.S_IMODE(file.stat().st_mode) for file in written.values()] == [0o600] * 2
        bus = await connect(nats.url, name="watcher", replicas=None)
        rows = await bus.rows(KEYS_TABLE)
        admin = KeyRow.FromString(rows[key_id_of(keys["admin.key"]) or ""])
        cli = KeyRow.FromString(rows[key_id_of(keys["cli.key"]) or ""])
        assert (admin.tenant, list(admin.scopes), list(admin.models)) == (
            "headrace",
            ["admin:*"],
            [],
        )
        assert (cli.tenant, list(cli.models)) == ("default", ["*"])
        assert list(cli.scopes) == [
            *("generate", "embed", "files", "batches"),
            *("models:read", "usage:read"),
        ]
        assert TABLE_STAMP in rows
        assert {"headrace", "default"} < (await bus.rows(TENANTS_TABLE)).keys()
        assert (await readiness(running)).text == "ok\nactive\n"
    assert running.process.returncode == 0
    log = (tmp_path / "control.log").read_text()
    assert "first_keys.written" in log
    assert not any(key in log for key in keys.values())
    written["admin.key"].unlink()
    async with control_process(tmp_path, nats.url, name="again", **options) as running:
        await serving(running)
        assert not written["admin.key"].exists()
        assert (await bus.rows(KEYS_TABLE)).keys() == rows.keys()
    await bus.close()


async def test_a_start_without_a_broker_waits_for_it(nats: NatsServer, tmp_path: Path) -> None:
    await nats.stop()
    log = tmp_path / "control.log"

    async def start_later() -> None:
        await eventually(log.exists)
        await asyncio.sleep(1)
        await nats.start()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(start_later())
        async with control_process(tmp_path, nats.url) as running:
            await serving(running)
