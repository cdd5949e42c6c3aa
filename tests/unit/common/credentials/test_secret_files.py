"""Secrets in files: who may read them, and when they are read again."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from headrace.auth.settings import AccessSettings
from headrace.credentials.secret_files import InsecureSecretFile, SecretFile, read_secret
from headrace.settings import InvalidSettings, read


def written(path: Path, content: str, mode: int = 0o600) -> Path:
    draft = path.with_suffix(".tmp")
    draft.write_text(content)
    draft.chmod(mode)
    draft.replace(path)
    return path


def number(content: bytes) -> int:
    return int(content)


def test_a_secret_is_read_without_white_space_around_it(tmp_path: Path) -> None:
    assert read_secret(written(tmp_path / "edge", " s3cret \n")) == b"s3cret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_may_use_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "edge", "s3cret", mode)
    with pytest.raises(InsecureSecretFile) as raised:
        read_secret(path)
    assert str(raised.value) == (
        f"{path} has mode {mode:04o}, so others than its owner may use it; run chmod 600 {path}"
    )


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InsecureSecretFile, match="none cannot be read: No such file"):
        read_secret(tmp_path / "none")
    with pytest.raises(InsecureSecretFile, match="edge is empty"):
        read_secret(written(tmp_path / "edge", "\n"))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    secret = SecretFile(written(tmp_path / "edge", "1"), number, recheck_s=0)
    assert secret.value() == 1
    written(tmp_path / "edge", "2")
    assert secret.value() == 2


def test_a_secret_whose_file_became_invalid_stays_and_that_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "edge", "1")
    secret = SecretFile(path, number, recheck_s=0)
    for spoil in (
        lambda: written(path, "no number"),
        lambda: path.chmod(0o644),
        lambda: os.unlink(path),
    ):
        caplog.clear()
        spoil()
        assert [secret.value() for _ in range(3)] == [1, 1, 1]
        assert [each.getMessage() for each in caplog.records] == ["secret_file.invalid"]
    with caplog.at_level(logging.INFO):
        written(path, "3")
        assert secret.value() == 3


class Settings(AccessSettings):
    model_config = SettingsConfigDict(env_prefix="HEADRACE_TESTED_")


def settings(*arguments: str) -> AccessSettings:
    return read(Settings, list(arguments))


def test_no_keys_are_required_unless_set() -> None:
    assert settings().auth == "none"


def test_keys_need_peppers() -> None:
    with pytest.raises(InvalidSettings) as raised:
        settings("--auth", "keys")
    assert raised.value.lines == [
        "peppers_file: Value error, auth is keys, which needs this file (got None)"
    ]


@pytest.mark.parametrize("flag", ["peppers-file", "edge-secret-file"])
def test_settings_refuse_a_secret_file_that_others_may_read(tmp_path: Path, flag: str) -> None:
    path = written(tmp_path / "secret", "s3cret", 0o644)
    with pytest.raises(InvalidSettings) as raised:
        settings(f"--{flag}", str(path))
    (line,) = raised.value.lines
    assert line.startswith(f"{flag.replace('-', '_')}: ")
    assert f"run chmod 600 {path}" in line
