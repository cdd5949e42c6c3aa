"""Sign-in at a real provider: what it proves, and what its faults and lies lead to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from headrace_control.base.records import Identity
from headrace_control.base.settings import ControlSettings
from headrace_control.sign_in.cookies import PendingSignIn, begin_sign_in
from headrace_control.sign_in.identity import UntrustedToken
from headrace_control.sign_in.provider import CodeRefused, OpenIdProvider, ProviderFailed
from helpers import openid_provider as fake
from helpers.http_server import answer, http_server


class StandingClock:
    def __init__(self) -> None:
        self.now_s = 100_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return time.time()


@pytest.fixture
def login() -> Iterator[fake.OpenIdProvider]:
    with fake.openid_provider() as provider:
        yield provider


def settings_of(folder: Path, issuer: str, **changed: Any) -> ControlSettings:
    secret = folder / "client-secret"
    secret.write_text(fake.CLIENT_SECRET)
    secret.chmod(0o600)
    given = {
        "public_url": "http://127.0.0.1:1",
        "oidc_issuer": issuer,
        "oidc_client_id": fake.CLIENT_ID,
        "oidc_client_secret_file": secret,
        **changed,
    }
    return ControlSettings(**given)


class Flow:
    """A browser's way through the provider and back."""

    def __init__(self, settings: ControlSettings) -> None:
        self.clock = StandingClock()
        self.provider = OpenIdProvider(settings, self.clock)

    async def consent(self, pending: PendingSignIn) -> dict[str, str]:
        """Return what the browser comes back with."""
        url = await self.provider.authorization_url(pending)
        async with httpx.AsyncClient(trust_env=False) as http:
            back = (await http.get(url)).headers["location"]
        return {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}

    async def sign_in(self) -> Identity:
        pending = begin_sign_in("/ui/")
        back = await self.consent(pending)
        assert back["state"] == pending.state
        return await self.provider.identity(back["code"], pending)


@pytest.fixture
def flow(login: fake.OpenIdProvider, tmp_path: Path) -> Flow:
    return Flow(settings_of(tmp_path, login.issuer))


async def test_a_consent_proves_who_the_person_is(login: fake.OpenIdProvider, flow: Flow) -> None:
    expected = Identity(login.issuer, "subject-1", "ann@example.com", "Ann")
    assert await flow.sign_in() == expected


async def test_configuration_and_keys_are_read_once(login: fake.OpenIdProvider, flow: Flow) -> None:
    for _ in range(3):
        await flow.sign_in()
    assert login.asked.count("/keys") == 1
    assert login.asked.count("/.well-known/openid-configuration") == 1


async def test_a_provider_that_has_a_new_key_is_read_again(
    login: fake.OpenIdProvider, flow: Flow
) -> None:
    await flow.sign_in()
    login.rotate_key("ES256")
    flow.clock.now_s += 11
    await flow.sign_in()
    assert login.asked.count("/keys") == 2


async def test_unknown_keys_do_not_make_the_provider_be_asked_again_and_again(
    login: fake.OpenIdProvider, flow: Flow
) -> None:
    await flow.sign_in()
    login.token = fake.SigningKey().sign({"sub": "subject-1"})
    for _ in range(5):
        with pytest.raises(UntrustedToken):
            await flow.sign_in()
    assert login.asked.count("/keys") == 1


@pytest.mark.parametrize(
    "lies",
    [
        {"nonce": "another"},
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"exp": int(time.time()) - 3600},
    ],
)
async def test_a_token_of_another_sign_in_proves_nothing(
    login: fake.OpenIdProvider, flow: Flow, lies: dict[str, Any]
) -> None:
    login.lies = lies
    with pytest.raises(UntrustedToken):
        await flow.sign_in()


async def test_an_address_that_is_not_verified_is_not_the_persons(
    login: fake.OpenIdProvider, flow: Flow
) -> None:
    login.account = fake.Account(email_verified=False)
    assert (await flow.sign_in()).email == ""


async def test_a_code_works_once_and_only_for_who_began(
    login: fake.OpenIdProvider, flow: Flow
) -> None:
    pending, another = begin_sign_in("/ui/"), begin_sign_in("/ui/")
    code = (await flow.consent(pending))["code"]
    with pytest.raises(CodeRefused):
        await flow.provider.identity(code, another)
    again = (await flow.consent(pending))["code"]
    await flow.provider.identity(again, pending)
    with pytest.raises(CodeRefused):
        await flow.provider.identity(again, pending)


async def test_the_secret_travels_in_the_body_where_the_provider_wants_it_there(
    login: fake.OpenIdProvider, flow: Flow
) -> None:
    login.document = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert (await flow.sign_in()).subject == "subject-1"


async def test_a_wrong_secret_is_a_fault_of_the_settings(
    login: fake.OpenIdProvider, tmp_path: Path
) -> None:
    flow = Flow(settings_of(tmp_path, login.issuer))
    (tmp_path / "client-secret").write_text("another")
    with pytest.raises(ProviderFailed, match="invalid_client"):
        await flow.sign_in()


async def test_a_provider_that_is_down_fails_at_once_for_a_while_and_then_is_tried_again(
    login: fake.OpenIdProvider, flow: Flow
) -> None:
    login.down = True
    for _ in range(3):
        with pytest.raises(ProviderFailed, match="status 503"):
            await flow.sign_in()
    assert len(login.asked) == 1
    login.down = False
    flow.clock.now_s += 3
    await flow.sign_in()


async def test_what_was_read_of_a_provider_serves_while_it_is_down(
    login: fake.OpenIdProvider, flow: Flow
) -> None:
    await flow.sign_in()
    login.down = True
    flow.clock.now_s += 3601
    assert await flow.provider.authorization_url(begin_sign_in("/ui/"))


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"issuer": "https://evil.example"}, "issuer 'https://evil.example'"),
        ({"token_endpoint": "http://evil.example/token"}, "token_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"),
        ({"jwks_uri": 7}, "jwks_uri"),
    ],
)
async def test_a_configuration_that_leads_elsewhere_is_not_used(
    login: fake.OpenIdProvider, flow: Flow, document: dict[str, Any], why: str
) -> None:
    login.document = document
    with pytest.raises(ProviderFailed, match=why):
        await flow.sign_in()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (answer(body="x"), "not JSON"),
        (answer(body="[]"), "no JSON object"),
        (answer(body='{"a": "' + "x" * 600_000 + '"}'), "more than 524288 bytes"),
        (answer(302, location="http://127.0.0.1:9/"), "status 302"),
        (None, "Timeout"),
    ],
    ids=["text", "list", "endless", "redirect", "silent"],
)
async def test_an_answer_that_cannot_be_used_is_the_providers_fault(
    tmp_path: Path, given: bytes | None, why: str
) -> None:
    async with http_server(given) as server:
        issuer = f"http://127.0.0.1:{server.port}"
        flow = Flow(settings_of(tmp_path, issuer, oidc_timeout_s=0.2 if given is None else 10.0))
        with pytest.raises(ProviderFailed, match=why):
            await flow.sign_in()


async def test_the_providers_certificate_is_of_an_authority_that_is_trusted(tmp_path: Path) -> None:
    certificate = tmp_path / "login.pem"
    with fake.openid_provider(certificate=certificate) as login:
        stranger = OpenIdProvider(settings_of(tmp_path, login.issuer), StandingClock())
        with pytest.raises(ProviderFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.authorization_url(begin_sign_in("/ui/"))
        known = settings_of(tmp_path, login.issuer, oidc_ca_file=certificate)
        assert await OpenIdProvider(known, StandingClock()).authorization_url(begin_sign_in("/"))
