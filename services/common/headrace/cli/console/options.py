"""Options that say which mesh a command speaks to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.state.failures import MeshNotRunning
from headrace.supervisor.state.state_dir import DEFAULT_STATE_DIR, StateDir

F = TypeVar("F", bound=Callable[..., Any])

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE_DIR,
    envvar="HEADRACE_STATE_DIR",
    show_default="./.headrace",
    help="Where the mesh keeps its state and logs; meshes are told apart by it.",
)

url_option = click.option(
    "--url",
    envvar="HEADRACE_URL",
    help="The mesh's URL. Default: of the mesh in --state-dir.",
)


def mesh_options(command: F) -> F:
    """`--url` and `--state-dir`, for commands that speak to a running mesh."""
    return url_option(state_dir_option(command))


def mesh_url(url: str | None, state_dir: Path) -> str:
    """The URL to speak to.

    Raises:
        MeshNotRunning: none was named and none runs in `state_dir`.
        ClickException: the mesh there has no port yet.
    """
    if url is not None:
        return url.rstrip("/").removesuffix("/v1")
    found = StateDir(state_dir).read_record().url
    if found is None:
        raise click.ClickException(f"the mesh in {state_dir} is still starting; try again soon")
    return found


def is_local(url: str, home: StateDir) -> bool:
    """Whether the mesh at this URL is the one of `home`, whose processes are within reach."""
    try:
        return home.read_record().url == mesh_url(url, home.folder)
    except MeshNotRunning:
        return False


def broker_url(state_dir: Path) -> str:
    """The broker of the mesh that runs in `state_dir`.

    Raises:
        MeshNotRunning: none runs there.
        ClickException: its broker has no port yet.
    """
    processes = StateDir(state_dir).read_record().processes
    ports = next((each.ports for each in processes if each.role == Role.NATS), {})
    if "nats" not in ports:
        raise click.ClickException(f"the broker of the mesh in {state_dir} has no port yet")
    return f"nats://127.0.0.1:{ports['nats']}"
