"""What engines of other projects need around them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import other_engines, running_mesh


@pytest.fixture(scope="session")
def upstream_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running_mesh.RunningMesh]:
    """A whole mesh of our own, as the upstream of another."""
    folder = tmp_path_factory.mktemp("upstream")
    other_engines.save_worded_llama(folder / "worded")
    model = ("--model", str(folder / "worded"), "--threads", "1")
    mesh = running_mesh.start(folder / "state", *model)
    yield mesh
    running_mesh.stop(mesh)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for models and tokenizers."""
    return tmp_path_factory.mktemp("files")
