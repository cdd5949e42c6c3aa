"""Options that choose the mesh of a command, and the URLs that follow from them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from headrace.bus import Bus, BusError, connect
from headrace.errors import BrokerUnavailable
from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.state.failures import MeshNotRunning
from headrace.supervisor.state.state_dir import DEFAULT_STATE_DIR, StateDir

F = TypeVar("F", bound=Callable[..., Any])

_CONNECT_S = 5.0


class _StateDirType(click.ParamType[StateDir]):
    name = "DIRECTORY"
    _path = click.Path(path_type=Path, file_okay=False)

    def convert(
        self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None
    ) -> StateDir:
        return StateDir(Path(str(self._path.convert(value, param, ctx))))


state_dir_option = click.option(
    "--state-dir",
    type=_StateDirType(),
    default=DEFAULT_STATE_DIR,
    envvar="HEADRACE_STATE_DIR",
    show_default="./.headrace",
    help="Directory of the mesh's state and logs. Each directory is another mesh.",
)

nats_url_option = click.option(
    "--nats-url", help="Broker. Default: that of the mesh in --state-dir."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

model_option = click.option("--model", help="Model to use. Default: the first that is served.")


def mesh_options(command: F) -> F:
    """Add `--url` and `--state-dir`, for commands that send requests to a running mesh."""
    url_option = click.option(
        "--url", envvar="HEADRACE_URL", help="URL of the mesh. Default: the mesh in --state-dir."
    )
    return url_option(state_dir_option(command))


def mesh_url(url: str | None, state_dir: StateDir) -> str:
    """Return the base URL of the mesh.

    Raises:
        MeshNotRunning: no URL was given and no mesh runs in `state_dir`.
        ClickException: the mesh there has no port yet.
    """
    if url is not None:
        return url.rstrip("/").removesuffix("/v1")
    found = state_dir.read_record().url
    if found is None:
        raise click.ClickException(f"the mesh in {state_dir.folder} is still starting; retry soon")
    return found


def is_local(url: str, state_dir: StateDir) -> bool:
    """Return whether the mesh at this URL is that of `state_dir`, with processes to signal."""
    try:
        return state_dir.read_record().url == mesh_url(url, state_dir)
    except MeshNotRunning:
        return False


@asynccontextmanager
async def open_bus(
    nats_url: str | None, state_dir: StateDir, *, command: str
) -> AsyncIterator[Bus]:
    """Connect to `nats_url`, or to the broker of the mesh in `state_dir`.

    Raises:
        MeshNotRunning: there is neither.
        ClickException: the mesh's broker has no port yet.
        BrokerUnavailable: in place of any BusError, from the body of the `with` too.
    """
    try:
        bus = await connect(
            nats_url or _broker_url(state_dir),
            name=f"headrace {command}",
            wait_s=_CONNECT_S,
            replicas=None,
        )
        try:
            yield bus
        finally:
            await bus.close()
    except BusError as error:
        raise BrokerUnavailable(str(error)) from error


def _broker_url(state_dir: StateDir) -> str:
    processes = state_dir.read_record().processes
    ports = next((each.ports for each in processes if each.role == Role.NATS), {})
    if "nats" not in ports:
        raise click.ClickException(f"the broker of {state_dir.folder} has no port yet; retry soon")
    return f"nats://127.0.0.1:{ports['nats']}"
