"""One mesh that end-to-end tests share; those that kill parts of it start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.running_mesh import RunningMesh, start, stop


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Two workers of the scripted engine at 10 ms a step, two schedulers, two gateways."""
    running = start(
        tmp_path_factory.mktemp("mesh"),
        *("--engine", "scripted", "--scripted-step-ms", "10"),
        *("--workers", "2", "--schedulers", "2", "--gateways", "2"),
    )
    yield running
    stop(running)
