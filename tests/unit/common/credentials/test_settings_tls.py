"""The settings of encrypted lines: all or none, and secrets for this process alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.settings import InvalidSettings, read
from headrace_scheduler.base.settings import SchedulerSettings
from helpers.mesh_certificates import MeshAuthority


def test_the_three_tls_files_go_together(tmp_path: Path) -> None:
    paths = MeshAuthority(tmp_path).issue("scheduler")
    url = "--nats-url=nats://user:hidden@broker:4222"
    with pytest.raises(InvalidSettings, match="go together") as refused:
        read(SchedulerSettings, [url, f"--tls-ca-file={paths.ca}"])
    assert "hidden" not in str(refused.value)


def test_a_key_that_others_can_read_is_refused_by_name(tmp_path: Path) -> None:
    paths = MeshAuthority(tmp_path).issue("scheduler")
    files = [f"--tls-{n}-file={getattr(paths, n)}" for n in ("ca", "cert", "key")]
    settings = read(SchedulerSettings, files)
    assert settings.tls is not None
    paths.key.chmod(0o644)
    with pytest.raises(InvalidSettings) as refused:
        read(SchedulerSettings, files)
    assert "tls_key_file" in str(refused.value)
    assert f"run chmod 600 {paths.key}" in str(refused.value)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    authority = MeshAuthority(tmp_path)
    one, two = authority.issue("scheduler", "one"), authority.issue("scheduler", "two")
    files = [f"--tls-ca-file={one.ca}", f"--tls-cert-file={one.cert}", f"--tls-key-file={two.key}"]
    with pytest.raises(InvalidSettings, match="are no certificate with its key"):
        read(SchedulerSettings, files)
