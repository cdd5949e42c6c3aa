"""headrace person, member and session, as an administrator uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.command import Ran, headrace
from helpers.control_edge import ControlEdge, control_edge


class Console:
    def __init__(self, edge: ControlEdge, folder: Path) -> None:
        self._edge, self._folder = edge, folder

    async def run(self, *arguments: str) -> Ran:
        return await headrace(*arguments, "--url", self._edge.url, folder=self._folder)

    async def done(self, *arguments: str) -> str:
        """Return what a command prints that succeeds."""
        ran = await self.run(*arguments)
        assert (ran.status, ran.err) == (0, "")
        return ran.out

    async def shown(self, *arguments: str) -> Any:
        return json.loads(await self.done(*arguments, "--json"))


@pytest.mark.slow
async def test_a_tenant_gets_people_who_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with control_edge(tmp_path) as edge, edge.browser() as ann, edge.browser() as bob:
        monkeypatch.setenv("HEADRACE_API_KEY", edge.admin_key)
        console = Console(edge, tmp_path)
        await console.shown("tenant", "create", "acme")
        made = await console.shown(
            "person", "create", "ann@example.com", "--tenant", "acme", "--role", "owner"
        )
        assert (made["email"], made["roles"]) == ("ann@example.com", {"acme": "owner"})
        assert (await ann.sign_in(email="ann@example.com")).is_redirect

        invited = await console.shown("member", "invite", "acme", "bob@example.com")
        token = {"token": invited["token"]}
        assert (await bob.call("POST", "invitations:accept", json=token)).status_code == 200
        promoted = await console.done(
            "member", "update", "acme", "bob@example.com", "--role", "admin"
        )
        assert promoted == "bob@example.com is admin of acme\n"
        assert (await bob.me()).json()["role"] == "admin"

        listed = await console.shown("session", "list")
        assert {each["person"] for each in listed if not each["key"]} >= {made["id"]}
        own = (await ann.me()).json()["name"]
        await console.done("session", "end", own)
        assert (await ann.me()).status_code == 401

        assert (await ann.sign_in(email="ann@example.com")).is_redirect
        none = await console.done("session", "end", "--all", "--tenant", "other")
        assert none == "sessions of tenant other that have ended: 0\n"
        assert (await bob.me()).status_code == 200
        both = await console.done("session", "end", "--all")
        assert both == "sessions that have ended: 2\n"
        assert {(await each.me()).status_code for each in (ann, bob)} == {401}

        assert (await bob.sign_in(email="bob@example.com", subject="bob")).is_redirect
        await console.done("member", "remove", "acme", "bob@example.com")
        assert (await bob.me()).status_code == 401
        ended = await console.done("person", "deactivate", "ann@example.com")
        assert ended == "ann@example.com is deactivated; sessions and keys ended\n"
        assert (await ann.sign_in(email="ann@example.com")).status_code == 403
        table = await console.done("person", "list")
        assert "ann@example.com" in table
        last = await console.run("member", "remove", "acme", "bob@example.com")
        assert (last.status, last.err) == (
            2,
            "headrace: no member of acme has the e-mail address bob@example.com\n",
        )
