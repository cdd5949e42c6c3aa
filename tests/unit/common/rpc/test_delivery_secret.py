"""The file of the secret between workers and gateways, as a setting of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.rpc.delivery_secret import HEADER, DeliverySettings
from headrace.settings import InvalidSettings, read
from headrace_gateway.base.settings import GatewaySettings
from headrace_worker.base.settings import WorkerSettings
from helpers.access_tables import write_secret

SERVICES = (GatewaySettings, WorkerSettings)


def flags(file: Path) -> list[str]:
    return ["--delivery-secret-file", str(file)]


@pytest.mark.parametrize("service", SERVICES)
def test_both_services_take_the_file(tmp_path: Path, service: type[DeliverySettings]) -> None:
    file = write_secret(tmp_path / "delivery", "s3cret\n")
    secret = read(service, flags(file)).delivery_secret
    assert secret.metadata() == ((HEADER, "s3cret"),)
    assert not secret.is_shown_in(())
    without = read(service, []).delivery_secret
    assert without.metadata() == ()
    assert without.is_shown_in(())


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("s3cret", 0o640, "chmod 600"),
        ("s3cret\nmore", 0o600, "one line of printable ASCII"),
        ("s3crét", 0o600, "one line of printable ASCII"),
        ("\n", 0o600, "is empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_without_its_content(
    tmp_path: Path, service: type[DeliverySettings], content: str, mode: int, words: str
) -> None:
    file = write_secret(tmp_path / "delivery", content)
    file.chmod(mode)
    with pytest.raises(InvalidSettings) as raised:
        read(service, flags(file))
    (line,) = raised.value.lines
    assert line.startswith("delivery_secret_file: ")
    assert words in line
    assert "s3cr" not in line
