"""Which hosts only this machine reaches."""

from __future__ import annotations

import pytest

from headrace.credentials.loopback import is_loopback


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("", False), ("10.1.2.3", False)),
        *(("gateway-0", False), ("localhost.example.com", False)),
    ],
)
def test_loopback_is_an_address_of_this_machine_alone(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local
