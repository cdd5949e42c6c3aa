"""A service that other machines reach is encrypted, or its settings state that it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.auth.settings import AccessSettings
from headrace.settings import InvalidSettings, ServiceSettings, read
from headrace_control.base.settings import ControlSettings
from headrace_gateway.base.settings import GatewaySettings
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_worker.base.settings import WorkerSettings
from helpers.control_process import write_peppers
from helpers.mesh_certificates import MeshAuthority

SERVICES: tuple[type[ServiceSettings], ...] = (
    *(GatewaySettings, SchedulerSettings, ControlSettings),
    WorkerSettings,
)
NEEDED: dict[type[ServiceSettings], list[str]] = {WorkerSettings: ["--model-source", "x"]}


def settings(service: type[ServiceSettings], *flags: str) -> Any:
    return read(service, [*NEEDED.get(service, []), *flags])


@pytest.mark.parametrize("service", SERVICES)
def test_beyond_loopback_a_service_needs_tls_or_the_word_insecure(
    service: type[ServiceSettings],
) -> None:
    for host in ("0.0.0.0", "10.1.2.3", "::"):
        with pytest.raises(InvalidSettings, match=r"tls_ca_file.*insecure"):
            settings(service, "--host", host)
    assert settings(service, "--host", "0.0.0.0", "--insecure").host == "0.0.0.0"


@pytest.mark.parametrize("service", SERVICES)
def test_on_loopback_it_needs_neither(service: type[ServiceSettings]) -> None:
    assert not settings(service, "--host", "::1").insecure


@pytest.mark.parametrize("service", SERVICES)
def test_beyond_loopback_what_answers_callers_needs_keys_besides_tls(
    service: type[ServiceSettings], tmp_path: Path
) -> None:
    tls = MeshAuthority(tmp_path).issue("any")
    flags = [
        "--host",
        "0.0.0.0",
        *(f"--tls-{n}-file={getattr(tls, n)}" for n in ("ca", "cert", "key")),
    ]
    if not issubclass(service, AccessSettings):
        assert settings(service, *flags).host == "0.0.0.0"
        return
    with pytest.raises(InvalidSettings, match=r"auth is none.*set auth to keys"):
        settings(service, *flags)
    peppers = write_peppers(tmp_path / "peppers", "a")
    assert (
        settings(service, *flags, "--auth", "keys", "--peppers-file", str(peppers)).auth == "keys"
    )
    assert settings(service, *flags, "--insecure").auth == "none"
