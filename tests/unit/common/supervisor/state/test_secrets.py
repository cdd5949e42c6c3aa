"""The secrets of a mesh in its state directory."""

from __future__ import annotations

from pathlib import Path

from cryptography.fernet import Fernet

from headrace.auth.peppers import Peppers
from headrace.credentials.secret_files import check_secret_file
from headrace.supervisor.state.secrets import MeshSecrets


def test_they_are_made_once_but_for_that_of_envoy(tmp_path: Path) -> None:
    secrets = MeshSecrets(tmp_path / "secrets")
    secrets.make(["gateway", "worker"])
    first = (secrets.peppers.read_bytes(), secrets.password("gateway"), secrets.proof())
    delivery = secrets.delivery.read_bytes()
    assert Peppers.parse(first[0]).current
    assert secrets.password("gateway") != secrets.password("worker")
    secrets.make(["gateway", "worker", "control"])
    assert (secrets.peppers.read_bytes(), secrets.password("gateway")) == first[:2]
    assert secrets.delivery.read_bytes() == delivery
    assert secrets.proof() != first[2]
    assert secrets.password("control")


def test_only_their_owner_may_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)
    secrets = MeshSecrets(folder)
    secrets.make(["gateway"])
    assert folder.stat().st_mode & 0o777 == 0o700
    for file in (
        secrets.peppers,
        secrets.edge,
        secrets.delivery,
        secrets.credentials("gateway"),
    ):
        check_secret_file(file)


def test_the_keys_of_webhooks_are_made_once(tmp_path: Path) -> None:
    secrets = MeshSecrets(tmp_path / "secrets")
    secrets.make_webhook_keys()
    first = secrets.webhooks.read_bytes()
    secrets.make_webhook_keys()
    assert secrets.webhooks.read_bytes() == first
    check_secret_file(secrets.webhooks)
    Fernet(first.strip())
