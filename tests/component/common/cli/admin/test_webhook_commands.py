"""headrace webhook, as an administrator uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from helpers.command import Ran, headrace
from helpers.control_edge import control_edge


async def test_an_endpoint_is_changed_in_what_is_given_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "webhook-keys"
    keys.touch(mode=0o600)
    keys.write_bytes(Fernet.generate_key())
    async with control_edge(
        tmp_path, webhook_keys_file=keys, webhook_networks='["127.0.0.0/8"]'
    ) as edge:

        async def run(*arguments: str) -> Ran:
            return await headrace("webhook", *arguments, "--url", edge.url, folder=tmp_path)

        async def updated(*changes: str) -> dict[str, Any]:
            ran = await run("update", webhook_id, *changes, "--json")
            assert ran.status == 0, ran
            return dict(json.loads(ran.out))

        monkeypatch.setenv("HEADRACE_API_KEY", edge.admin_key)
        url = "http://127.0.0.1:9"
        made = await run("create", url, "--event", "batch.failed", "--label", "a=b", "--json")
        before = json.loads(made.out)
        webhook_id = before["id"]
        del before["secret"]

        moved = await updated("--to", f"{url}/hooks", "--display-name", "Night")
        assert moved == before | {"url": f"{url}/hooks", "display_name": "Night"}
        more = await updated("--event", "batch.completed", "--event", "batch.expired")
        assert more == moved | {"event_types": ["batch.completed", "batch.expired"]}
        assert await updated("--all-events") == moved | {"event_types": []}
        labelled = await updated("--label", "c=d")
        assert labelled["labels"] == {"c": "d"}
        assert (await updated("--no-labels"))["labels"] == {}
        disabled = await updated("--disable")
        assert disabled["disabled"] == "an administrator has disabled it"
        assert (await updated("--enable"))["disabled"] is None

        nothing = await run("update", webhook_id)
        assert (nothing.status, "nothing to change is given" in nothing.err) == (2, True)
        wrong = await run("update", webhook_id, "--event", "batch.ended")
        assert (wrong.status, "types are batch.completed" in wrong.err) == (2, True)
        gone = await run("update", "none", "--disable")
        assert (gone.status, "not found" in gone.err) == (2, True)
