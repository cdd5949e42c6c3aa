"""`headrace tenant`, `plan` and `key`, run as an operator runs them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from headrace.auth.keys import key_id_of
from helpers.command import Ran, headrace
from helpers.control_process import add_pepper


class Commands:
    """Commands for a control process; `key` is that of HEADRACE_API_KEY."""

    def __init__(self, folder: Path, port: int, key: str) -> None:
        self._folder, self._port, self.key = folder, port, key

    async def __call__(self, *arguments: str, key: str | None = None) -> Ran:
        options = ("--url", f"http://127.0.0.1:{self._port}", "--api-key", key or self.key)
        return await headrace(*arguments, *options, folder=self._folder)

    def add_pepper(self, pepper_id: str) -> None:
        add_pepper(self._folder / "peppers", pepper_id)


@pytest.fixture
def run(keyed_control: Any, tmp_path: Path) -> Commands:
    return Commands(tmp_path, keyed_control.port, keyed_control.admin_key)


async def test_a_key_is_created_listed_rotated_and_revoked(run: Commands) -> None:
    made = await run("key", "create", "--tenant", "acme", "--label", "team=search", "--json")
    assert made.status == 0, made.err
    shown = json.loads(made.out)
    assert shown["id"] == key_id_of(shown["key"])
    assert shown["tenant"] == "acme"
    assert (shown["models"], shown["labels"]) == (["*"], {"team": "search"})
    listed = json.loads((await run("key", "list", "--tenant", "acme", "--json")).out)
    assert [each["id"] for each in listed] == [shown["id"]]
    assert "key" not in listed[0]
    rotated = await run("key", "rotate", shown["id"], "--grace", "0s")
    secret, *rest = rotated.out.splitlines()
    assert (key_id_of(secret), rest) == (shown["id"], [])
    assert "shown this once" in rotated.err
    old = await run("key", "show", shown["id"], key=shown["key"])
    assert old.status == 2
    assert old.err.startswith("headrace: Incorrect API key provided. (commands send the key of")
    revoked = await run("key", "revoke", shown["id"])
    assert revoked.out == f"key {shown['id']} of tenant acme is revoked\n"
    assert (await run("key", "list", "--tenant", "acme")).out == "there is no key\n"


async def test_a_tenant_gets_a_plan_and_other_fields(run: Commands) -> None:
    plan = await run("plan", "create", "small", "--requests-per-minute", "60")
    assert plan.status == 0, plan.err
    assert "requests_per_minute=60" in plan.out
    await run("tenant", "create", "acme", "--plan", "small", "--network", "10.0.0.0/8")
    changed = await run("tenant", "update", "acme", "--any-network", "--disable", "--json")
    shown = json.loads(changed.out)
    assert (shown["plan"], shown["networks"], shown["disabled"]) == ("small", [], True)
    refused = await run("plan", "delete", "small")
    assert refused.status == 2
    assert "acme among them" in refused.err
    assert (await run("tenant", "delete", "acme")).out == "tenant acme is deleted\n"
    assert (await run("tenant", "show", "acme")).err == "headrace: tenant acme not found\n"


async def test_a_tenant_gets_limits_of_models_and_is_billed_in_its_own_currency(
    run: Commands,
) -> None:
    plan = await run("plan", "update", "free", "--budget-per-month", "12.50", "--json")
    assert json.loads(plan.out)["limits"] == {
        "requests_per_minute": 20,
        "requests_per_day": 1000,
        "batch_tokens_per_day": 1_000_000,
        "budget_per_month": "12.50",
    }
    zone = ("--time-zone", "Europe/Zurich", "--currency", "CHF", "--on-keeper-loss", "allow")
    limit = "a:b:requests_per_minute=20,budget-per-month=0.25"
    made = await run("tenant", "create", "acme", *zone, "--model-limit", limit, "--json")
    assert made.status == 0, made.err
    shown = json.loads(made.out)
    assert (shown["time_zone"], shown["currency"]) == ("Europe/Zurich", "CHF")
    assert (shown["on_keeper_loss"], shown["upstream_engines"]) == ("allow", True)
    limits = {"a:b": {"requests_per_minute": 20, "budget_per_month": "0.25"}}
    assert shown["model_limits"] == limits
    lifted = await run("tenant", "update", "acme", "--no-model-limits", "--json")
    assert json.loads(lifted.out)["model_limits"] == {}
    wrong = await run("tenant", "update", "acme", "--time-zone", "Europe/Zurch")
    assert wrong.status == 2
    assert "did you mean Europe/Zurich?" in wrong.err

    key = json.loads((await run("key", "create", "--tenant", "acme", "--json")).out)["id"]
    changed = await run("key", "update", key, "--model-limit", limit, "--tokens-per-day", "9")
    assert changed.status == 0, changed.err
    shown = json.loads((await run("key", "show", key, "--json")).out)
    assert (shown["limits"], shown["model_limits"]) == ({"tokens_per_day": 9}, limits)
    for wrong_limit in ("valley", "valley:speed=3", "valley:tokens_per_day=x", "valley:"):
        refused = await run("key", "update", key, "--model-limit", wrong_limit)
        assert refused.status == 2


async def test_words_of_errors_are_options_and_a_price_of_no_tenants_currency_is_warned_of(
    run: Commands,
) -> None:
    await run("tenant", "create", "acme", "--currency", "CHF")
    wrong = await run("tenant", "update", "acme", "--currency", "euro")
    assert wrong.status == 2
    assert wrong.err.startswith("headrace: --currency is 'euro', which is no currency")
    price = ("price", "set", "valley", "--input", "1", "--output", "2", "--json")
    usual = await run(*price, "--currency", "CHF")
    assert (usual.status, usual.err) == (0, "")
    other = await run(*price, "--currency", "EUR")
    assert json.loads(other.out)["currency"] == "EUR"
    assert "no tenant is billed in EUR" in other.err
    assert "CHF" in other.err


async def test_keys_that_need_an_old_pepper_are_listed_after_a_new_one_came(run: Commands) -> None:
    made = json.loads((await run("key", "create", "--tenant", "acme", "--json")).out)

    async def needing_old() -> set[str]:
        listed = json.loads((await run("key", "list", "--old-pepper", "--json")).out)
        return {each["id"] for each in listed}

    assert await needing_old() == set()
    assert (await run("key", "list", "--old-pepper")).out == "no key needs an old pepper\n"
    run.add_pepper("b")
    async with asyncio.timeout(30):
        while made["id"] not in await needing_old():
            await asyncio.sleep(0.1)
    new = json.loads((await run("key", "create", "--tenant", "acme", "--json")).out)
    assert new["id"] not in await needing_old()
    listed = json.loads((await run("key", "list", "--tenant", "acme", "--json")).out)
    assert {each["id"] for each in listed} == {made["id"], new["id"]}


async def test_ending_sessions_needs_one_id_or_all(run: Commands) -> None:
    for arguments in ((), ("abc", "--all"), ("abc", "--tenant", "acme")):
        assert (await run("session", "end", *arguments)).status == 2
