"""Hosts and ports in URLs and gRPC targets."""

from __future__ import annotations

import pytest

from headrace.rpc.addresses import (
    InvalidAddress,
    connect_host,
    grpc_target,
    join_host_port,
    own_address_for,
    split_host_port,
    without_zone,
)
from headrace.supervisor.plan.mesh_options import DEFAULT_MODEL, MeshOptions
from headrace.supervisor.public_port import external_urls, require_free_port
from headrace.supervisor.state.failures import InvalidOption, PortTaken


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://gateway-0.mesh:8090/v1", "gateway-0.mesh:8090"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://[::1]:8080/v1", "[::1]:8080"),
        ("[2001:db8::7]:90", "[2001:db8::7]:90"),
        ("http://[::1]", "[::1]:80"),
        ("::1", "[::1]:80"),
        ("localhost", "localhost:80"),
        ("nats://user:secret@[::1]:4222", "[::1]:4222"),
    ],
)
def test_a_url_and_an_address_name_the_same_target(url: str, expected: str) -> None:
    assert grpc_target(url) == expected


@pytest.mark.parametrize(
    "url", ["http://host:0x50", "http://host:99999", "http://[::1", "1::2:x:3"]
)
def test_what_is_not_an_address_is_rejected_by_name(url: str) -> None:
    with pytest.raises(InvalidAddress, match="is not an address"):
        split_host_port(url)


def test_brackets_are_written_once() -> None:
    assert join_host_port("::1", 80) == join_host_port("[::1]", 80) == "[::1]:80"
    assert join_host_port("10.0.0.1", 80) == "10.0.0.1:80"


def test_what_listens_everywhere_is_found_on_the_loopback() -> None:
    assert [connect_host(host) for host in ("0.0.0.0", "::", "10.0.0.1")] == [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
    ]


def test_an_address_with_a_zone_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidAddress, match=r"has a zone \(eth0\)"):
        without_zone("fe80::1%eth0")
    with pytest.raises(InvalidOption, match=r"--host: .*zone"):
        MeshOptions(models=(DEFAULT_MODEL,), host="fe80::1%eth0")


def test_this_machine_knows_its_address_towards_another() -> None:
    assert own_address_for("127.0.0.1", 4222) == "127.0.0.1"
    assert own_address_for("::1", 4222) == "::1"
    assert own_address_for("no.such.host.invalid", 4222) == "127.0.0.1"


def test_an_address_that_this_machine_lacks_is_reported_as_such() -> None:
    with pytest.raises(PortTaken, match=r"\[2001:db8::7\]:0.*--host"):
        require_free_port("2001:db8::7", 0)


def test_only_a_mesh_on_every_address_has_urls_for_other_machines() -> None:
    assert external_urls("127.0.0.1", 80) == []
    assert not [url for url in external_urls("0.0.0.0", 80) if "127.0.0.1" in url]
    assert all(url.endswith("]:80") for url in external_urls("::", 80))
