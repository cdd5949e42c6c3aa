"""Settings of sign-in that would not work, or send secrets over open lines."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from headrace_control.base.settings import ControlSettings
from headrace_control.base.sign_in_settings import is_safe_url

COMPLETE: dict[str, Any] = {
    "public_url": "https://llm.example.com",
    "oidc_issuer": "https://login.example.com",
    "oidc_client_id": "headrace",
}


def test_the_redirect_url_follows_from_the_public_url() -> None:
    settings = ControlSettings(**COMPLETE | {"public_url": "https://llm.example.com/"})
    assert settings.oidc_redirect_url == "https://llm.example.com/v2/admin/oidc/callback"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"oidc_client_id": ""}, "oidc_issuer is set"),
        ({"public_url": ""}, "needs public_url"),
        ({"public_url": "http://llm.example.com"}, "must be https"),
        ({"public_url": "https://llm.example.com/path"}, "must be https"),
        ({"public_url": "llm.example.com"}, "must be https"),
        ({"oidc_issuer": "http://login.example.com"}, "must be an https URL"),
        ({"oidc_issuer": "https://login.example.com?x"}, "must be an https URL"),
        ({"oidc_default_role": "admin"}, "'viewer' or 'member'"),
        ({"oidc_client_secret_file": "/nowhere"}, "cannot be read"),
    ],
)
def test_settings_that_would_not_work_are_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ControlSettings(**COMPLETE | changed)


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://login.example.com/x", True),
        ("http://127.0.0.1:8080/x", True),
        ("http://[::1]/x", True),
        ("http://localhost/x", True),
        ("http://login.example.com/x", False),
        ("http://127.0.0.1.evil.example/x", False),
        ("http://localhost@evil.example/x", False),
        ("https://user:password@login.example.com/", False),
        ("https://login.example.com/#x", False),
        ("https://login.example.com:port/", False),
        ("https:///x", False),
        ("ftp://login.example.com/", False),
        ("", False),
    ],
)
def test_secrets_go_over_https_or_stay_on_this_machine(url: str, is_safe: bool) -> None:
    assert is_safe_url(url) is is_safe
