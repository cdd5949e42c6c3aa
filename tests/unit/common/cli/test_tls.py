"""headrace tls, on the state directory of a mesh that does not run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from headrace.supervisor.servers.tls_store import ROLES, TlsStore
from helpers.command import headrace


async def test_without_certificates_the_command_says_how_to_get_them(tmp_path: Path) -> None:
    ran = await headrace("tls", "rotate", folder=tmp_path)
    assert ran.status == 1
    assert "has no certificates; start it with `headrace up --tls`" in ran.err


async def test_certificates_are_listed_renewed_and_signed_anew(tmp_path: Path) -> None:
    store = TlsStore(tmp_path / ".headrace" / "tls")
    store.prepare(datetime.now(UTC), ["llm.example.com"])
    listed = json.loads((await headrace("tls", "list", "--json", folder=tmp_path)).out)
    assert [row["role"] for row in listed] == list(ROLES)
    assert 89 < listed[0]["days_left"] <= 90
    assert "llm.example.com" in listed[-1]["names"]
    before = store.read("worker")
    ran = await headrace("tls", "rotate", folder=tmp_path)
    assert ran.out.startswith("renewed: nats, scheduler")
    assert store.read("worker") != before
    ran = await headrace("tls", "rotate", "--authority", folder=tmp_path)
    assert f"give clients the new {store.ca}" in ran.out
    assert store.ca.read_bytes().count(b"BEGIN CERT") == 2
    ran = await headrace("tls", "forget-authorities", folder=tmp_path)
    assert ran.out == "authorities no longer trusted: 1\n"
