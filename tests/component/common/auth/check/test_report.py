"""Control hears which keys are used, which digests are to be replaced, and what failed."""

from __future__ import annotations

import asyncio
import base64

from headrace.auth.keys import new_key
from headrace.auth.peppers import Peppers
from headrace.auth.scopes import GENERATE, MODELS_READ
from headrace.auth.settings import AccessSettings
from headrace.bus import Bus
from headrace.bus.subjects import ACCESS_REPORTS
from headrace.errors import (
    InvalidApiKey,
)
from headrace.internal.v1.access_pb2 import AccessReport, AccessReportResponse, FailedAttempts
from helpers.access_tables import PublishedTables, key_row, write_secret
from helpers.checked_server import serving
from helpers.eventually import eventually


async def test_control_gets_uses_and_failures_once_it_is_there(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    key = await tables.key("a", scopes=[GENERATE, MODELS_READ])
    reports: list[AccessReport] = []

    async def receive(payload: bytes) -> bytes:
        reports.append(AccessReport.FromString(payload))
        return AccessReportResponse().SerializeToString()

    async with serving(bus, settings) as served:
        await eventually(lambda: served.access.not_ready_reason() is None)
        await served.list_models(key)
        await served.list_models(key)
        await served.error("none")
        await asyncio.sleep(5.5)
        await bus.serve(ACCESS_REPORTS, receive)
        await eventually(lambda: bool(reports), within_s=12)
    assert [use.key_id for use in reports[0].uses] == [key[3:14]]
    assert [(each.reason, each.count) for each in reports[0].failures] == [("malformed", 1)]
    assert reports[0].failures[0].client == "127.0.0.1"


async def test_ids_that_a_client_makes_up_do_not_fill_reports(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    failures: list[FailedAttempts] = []

    async def receive(payload: bytes) -> bytes:
        failures.extend(AccessReport.FromString(payload).failures)
        return AccessReportResponse().SerializeToString()

    await bus.serve(ACCESS_REPORTS, receive)
    async with serving(bus, settings) as served:
        await eventually(lambda: served.access.not_ready_reason() is None)
        for _ in range(100):
            await served.error(new_key())
        await eventually(lambda: sum(each.count for each in failures) == 100, within_s=15)
    assert len(failures) < 40, "20 attempts a minute of one client have the ids that they name"


async def test_a_new_pepper_is_in_force_without_a_restart_and_digests_are_renewed(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    key = await tables.key("a")
    reports: list[AccessReport] = []

    async def receive(payload: bytes) -> bytes:
        reports.append(AccessReport.FromString(payload))
        return AccessReportResponse().SerializeToString()

    await bus.serve(ACCESS_REPORTS, receive)
    assert settings.peppers_file is not None
    async with serving(bus, settings) as served:
        await eventually(lambda: served.access.not_ready_reason() is None)
        two = base64.b64encode(b"2" * 32).decode()
        rotated = f"two {two}\n{settings.peppers_file.read_text()}"
        write_secret(settings.peppers_file, rotated)
        await asyncio.sleep(1.1)
        assert await served.list_models(key)
        await eventually(lambda: bool(reports), within_s=12)
        (use,) = reports[0].uses
        peppers = Peppers.parse(rotated.encode())
        assert use.renewed == peppers.digest(key)
        row = key_row(key, "a")
        row.digests[0].CopyFrom(use.renewed)
        await tables.put_key(row)
        # The old pepper goes: the key is valid by its new digest, others are not.
        write_secret(settings.peppers_file, f"two {two}\n")
        await asyncio.sleep(1.1)
        assert await served.list_models(key)
        assert type(await served.error(await tables.key("a"))) is InvalidApiKey
