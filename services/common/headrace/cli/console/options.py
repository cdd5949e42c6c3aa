"""Options that choose the mesh of a command, and the URLs that follow from them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import click

from headrace.bus import Bus, BusError, connect
from headrace.client import NO_RETRIES, AsyncClient, Client
from headrace.credentials.tls_files import TlsFiles, TlsPaths
from headrace.errors import BrokerUnavailable
from headrace.rpc.addresses import is_https
from headrace.rpc.identity import PUBLIC, server_name
from headrace.rpc.tls import ChannelSecurity, Trust, public_security
from headrace.supervisor.plan.mesh_options import Role
from headrace.supervisor.state.failures import MeshNotRunning
from headrace.supervisor.state.state_dir import DEFAULT_STATE_DIR, StateDir

T = TypeVar("T")


F = TypeVar("F", bound=Callable[..., Any])

_CONNECT_S = 5.0


class CommaSeparated(click.ParamType[tuple[T, ...]]):
    """One or more values of another type, such as 1,8,32."""

    def __init__(self, value_type: click.ParamType[T]) -> None:
        self.name, self._value_type = f"{value_type.name},...", value_type

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[T, ...]:
        return tuple(self._value_type.convert(each, param, ctx) for each in value.split(","))


state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=StateDir, file_okay=False),
    default=DEFAULT_STATE_DIR,
    envvar="HEADRACE_STATE_DIR",
    help="Directory of the mesh's state and logs. Each directory is another mesh.",
)

nats_url_option = click.option(
    "--nats-url", help="Broker. Default: that of the mesh in --state-dir."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

model_option = click.option("--model", help="Model to use. Default: the first that is served.")


def sampling_options(command: F) -> F:
    """Add the options that the command gets as the keywords of `Sampling`."""
    max_tokens = click.option(
        "--max-tokens", type=click.IntRange(min=1), help="Most output tokens."
    )
    temperature = click.option(
        "--temperature", type=float, help="0 is greedy. Default: the model's."
    )
    return max_tokens(temperature(command))


@dataclass(frozen=True, slots=True)
class MeshTarget:
    """The mesh that a command is for: the one at a URL, or else that of a state directory."""

    chosen_url: str | None
    state_dir: StateDir
    api_key: str | None = field(default=None, repr=False)
    """HEADRACE_API_KEY."""
    ca_file: Path | None = None
    """HEADRACE_CA_FILE."""

    def client(self) -> Client:
        """Return a blocking client that uses models. Raises as `url` and `using_key`."""
        return Client(self.url, **self._options(self.using_key()))

    def async_client(self) -> AsyncClient:
        """Return a client that uses models, for an event loop. Raises as `client`."""
        return AsyncClient(self.url, **self._options(self.using_key()))

    def admin_client(self) -> AsyncClient:
        """Return a client that sees workers and lanes. Raises as `url` and `admin_key`."""
        return AsyncClient(self.url, **self._options(self.admin_key()))

    def _options(self, key: str | None) -> dict[str, Any]:
        # Why no retries: a person at a terminal sees at once that nothing answers. Why not None: a
        # client would take the key of the environment, which is for another mesh.
        return {"api_key": key or "", "retries": NO_RETRIES, **self.trust()}

    def security(self) -> ChannelSecurity | None:
        """Return the security of a channel to the mesh; None: it has no TLS."""
        return public_security(self.url, self.trust())

    def trust(self) -> Trust:
        """Return by which authority the mesh's certificate must be signed, and its name."""
        ca = self.state_dir.tls / "ca.crt"
        if self.ca_file is None and self.is_local and ca.exists():
            # Why: whatever certificate it has for others, it also has one of its own authority.
            return {"ca_file": ca, "server_name": server_name(PUBLIC)}
        return {"ca_file": self.ca_file, "server_name": ""}

    def using_key(self) -> str | None:
        """Return the key that uses models: HEADRACE_API_KEY, or else cli.key, if there is one.

        Raises:
            ClickException: the file cannot be read.
        """
        return self.api_key or self._key_in(self.state_dir.cli_key)

    def admin_key(self) -> str | None:
        """Return the key that administers: HEADRACE_API_KEY, or else admin.key, if there is one.

        Raises:
            ClickException: the file cannot be read.
        """
        return self.api_key or self._key_in(self.state_dir.admin_key)

    def _key_in(self, file: Path) -> str | None:
        # Why: a key of the mesh here is no other mesh's business.
        if not self.is_local:
            return None
        try:
            return file.read_text().strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise click.ClickException(f"the key in {file} cannot be read: {error}") from error

    @property
    def url(self) -> str:
        """The base URL.

        Raises:
            MeshNotRunning: no URL was given and no mesh runs in `state_dir`.
            ClickException: the mesh there has no port yet.
        """
        if self.chosen_url is not None:
            return self.chosen_url.rstrip("/").removesuffix("/v1")
        url, folder = self.state_dir.read_record().url, self.state_dir.folder
        if url is None:
            raise click.ClickException(f"the mesh in {folder} is still starting; retry soon")
        return url

    @property
    def is_local(self) -> bool:
        """Whether it is the mesh of `state_dir`, with processes to signal."""
        try:
            return self.chosen_url is None or self.state_dir.read_record().url == self.url
        except MeshNotRunning:
            return False


def mesh_options(command: Callable[..., T]) -> Callable[..., T]:
    """Add `--url` and `--state-dir`, which the command gets as `mesh`, a MeshTarget."""

    @click.option(
        "--url", envvar="HEADRACE_URL", help="URL of the mesh. Default: the mesh in --state-dir."
    )
    @state_dir_option
    # Why hidden: other users of the machine see the options of processes, but not the environment.
    @click.option("--api-key", envvar="HEADRACE_API_KEY", hidden=True)
    @click.option(
        "--ca-file",
        envvar="HEADRACE_CA_FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Authorities that may sign the certificate of an https URL, in PEM. Default: those of "
        "the mesh in --state-dir, or for other meshes those of the web.",
    )
    @wraps(command)
    def with_mesh(
        *,
        url: str | None,
        state_dir: StateDir,
        api_key: str | None,
        ca_file: Path | None,
        **options: Any,
    ) -> T:
        return command(mesh=MeshTarget(url, state_dir, api_key, ca_file), **options)

    return with_mesh


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
            **({} if nats_url else _operator(state_dir)),
        )
        try:
            yield bus
        finally:
            await bus.close()
    except BusError as error:
        raise BrokerUnavailable(str(error)) from error


class _Operator(TypedDict, total=False):
    tls: TlsFiles | None
    credentials_file: Path | None


def _operator(state_dir: StateDir) -> _Operator:
    """Return what the broker of this directory's mesh knows its operator by."""
    at = state_dir.tls / "operator"
    # Why by the URL: what an earlier mesh of this directory had may be there all the same.
    is_encrypted = is_https(state_dir.read_record().url or "")
    paths = TlsPaths(at / "ca.crt", at / "tls.crt", at / "tls.key")
    return {
        "tls": TlsFiles(paths) if is_encrypted else None,
        "credentials_file": state_dir.secrets.operator,
    }


def _broker_url(state_dir: StateDir) -> str:
    processes = state_dir.read_record().processes
    ports = next((each.ports for each in processes if each.role == Role.NATS), {})
    if "nats" not in ports:
        raise click.ClickException(f"the broker of {state_dir.folder} has no port yet; retry soon")
    return f"nats://127.0.0.1:{ports['nats']}"
