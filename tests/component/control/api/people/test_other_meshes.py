"""Sign-in where there is no provider, where no keys are required, and where somebody guesses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from helpers.control_edge import ControlEdge, control_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")
NO_PROVIDER: dict[str, Any] = {"oidc_issuer": "", "oidc_client_id": "", "public_url": ""}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keys_only(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlEdge]:
    async with control_edge(tmp_path_factory.mktemp("keys"), **NO_PROVIDER) as running:
        yield running


@pytest.mark.parametrize("path", ["oidc/login", "oidc/callback?state=x&code=y"])
async def test_without_a_provider_its_paths_are_not_found_and_say_why(
    keys_only: ControlEdge, path: str
) -> None:
    async with keys_only.browser() as browser:
        for answer in (
            await browser.visit(f"/v2/admin/{path}"),
            await browser.http.get(f"/v2/admin/{path}"),
        ):
            assert answer.status_code == 404
            assert "settings oidc_issuer, oidc_client_id and public_url" in answer.text


async def test_without_a_provider_people_sign_in_with_keys(keys_only: ControlEdge) -> None:
    async with keys_only.browser() as browser:
        assert (await browser.sign_in_with_key(keys_only.admin_key)).status_code == 200
        assert (await browser.me()).json()["scopes"] == ["admin:*"]


async def test_a_cookie_is_for_https_where_the_call_came_by_it(keys_only: ControlEdge) -> None:
    async with keys_only.browser() as browser:
        cookie = (await browser.sign_in_with_key(keys_only.admin_key)).headers["set-cookie"]
        assert "Secure" not in cookie


async def test_guesses_of_invitations_are_limited_and_keys_are_not(keys_only: ControlEdge) -> None:
    async with keys_only.browser() as browser:
        statuses = []
        for number in range(25):
            token = {"token": f"guess-{number}"}
            statuses.append(await browser.call("POST", "invitations:accept", json=token))
        assert [each.status_code for each in statuses[:20]] == [404] * 20
        assert statuses[-1].status_code == 429
        assert "retry in" in statuses[-1].json()["message"]
        assert (await browser.sign_in_with_key(keys_only.admin_key)).status_code == 200


async def test_where_no_keys_are_required_there_is_nobody_to_sign_in(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with (
        control_edge(tmp_path_factory.mktemp("open"), auth="none") as edge,
        edge.browser() as browser,
    ):
        for answer in (
            await browser.sign_in_with_key("hr_x"),
            await browser.call("POST", "invitations:accept", json={"token": "x"}),
            await browser.http.get("/v2/admin/oidc/login"),
        ):
            assert answer.status_code == 400
            assert "requires no keys, so there are no sessions" in answer.json()["message"]
        me = (await browser.me()).json()
        assert (me["name"], me["tenant"], me["person"]) == ("sessions/me", "tenants/default", "")
        assert "admin:*" in me["scopes"]
