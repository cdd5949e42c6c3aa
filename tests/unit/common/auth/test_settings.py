"""Settings of access, as flags and files give them."""

from __future__ import annotations

import pytest
from pydantic_settings import SettingsConfigDict

from headrace.auth.settings import AccessSettings
from headrace.settings import InvalidSettings, read


class Settings(AccessSettings):
    model_config = SettingsConfigDict(env_prefix="HEADRACE_TESTED_")


def test_no_keys_can_be_asked_for_by_name() -> None:
    assert read(Settings, ["--auth", "none"]).auth == "none"


def test_keys_need_peppers() -> None:
    with pytest.raises(InvalidSettings, match=r"peppers_file.*needs this file"):
        read(Settings, ["--auth", "keys"])
