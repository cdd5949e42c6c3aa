"""The cookie of a sign-in that is under way, and cookies as headers."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest

from headrace_control.sign_in.cookies import (
    SIGN_IN_S,
    SignInSeal,
    begin_sign_in,
    cleared_sign_in_cookie,
    cookies_named,
    session_cookie,
    sign_in_cookie,
)

KEY, NOW_S = b"k" * 32, 1_800_000_000


def test_a_sign_in_is_what_was_sealed_until_it_expires() -> None:
    seal, pending = SignInSeal(KEY), begin_sign_in("/ui/chat")
    sealed = seal.seal(pending, now_s=NOW_S)
    assert seal.open(sealed, now_s=NOW_S + SIGN_IN_S) == pending
    assert seal.open(sealed, now_s=NOW_S + SIGN_IN_S + 1) is None


def test_the_cookie_shows_nothing_of_the_sign_in() -> None:
    pending = begin_sign_in("/ui/chat")
    content = base64.urlsafe_b64decode(SignInSeal(KEY).seal(pending, now_s=NOW_S))
    for secret in (pending.state, pending.nonce, pending.verifier, pending.return_to):
        assert secret.encode() not in content


@pytest.mark.parametrize("damage", ["", "x", "gAAAA", "ü", "a" * 5000])
def test_what_is_no_seal_opens_nothing(damage: str) -> None:
    assert SignInSeal(KEY).open(damage, now_s=NOW_S) is None


def test_an_altered_seal_or_one_of_another_key_opens_nothing() -> None:
    sealed = SignInSeal(KEY).seal(begin_sign_in("/ui/"), now_s=NOW_S)
    for at in range(0, len(sealed), 7):
        other = "A" if sealed[at] != "A" else "B"
        assert SignInSeal(KEY).open(sealed[:at] + other + sealed[at + 1 :], now_s=NOW_S) is None
    assert SignInSeal(b"K" * 32).open(sealed, now_s=NOW_S) is None


def test_no_two_sign_ins_share_a_secret() -> None:
    drawn = {
        s for _ in range(100) for p in [begin_sign_in("/")] for s in (p.state, p.nonce, p.verifier)
    }
    assert len(drawn) == 300
    assert min(map(len, drawn)) == 43


def test_the_challenge_is_the_sha256_of_the_verifier() -> None:
    pending = begin_sign_in("/")
    digest = base64.urlsafe_b64decode(pending.challenge + "=")
    assert digest == sha256(pending.verifier.encode()).digest()


def test_cookies_are_for_http_and_this_site_only() -> None:
    cookie = session_cookie("headrace_session", "v", max_age_s=9, secure=True)
    assert cookie == "headrace_session=v; Path=/; Max-Age=9; HttpOnly; SameSite=Lax; Secure"
    assert "Secure" not in session_cookie("headrace_session", "v", max_age_s=9, secure=False)
    assert sign_in_cookie("v", secure=True).startswith("headrace_sign_in=v; Path=/v2/admin/oidc; ")
    assert "=; Path=/v2/admin/oidc; Max-Age=0;" in cleared_sign_in_cookie(secure=False)


def test_every_cookie_of_the_name_is_found() -> None:
    header = (
        "a=1; headrace_sign_in=x=y; xheadrace_sign_in=no; headrace_sign_in=; headrace_sign_in=z"
    )
    assert list(cookies_named("headrace_sign_in", header)) == ["x=y", "z"]
