"""Which database and which broker a command is for."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from headrace.bus import Bus, BusError, connect
from headrace.cli.console.options import open_bus, state_dir_option
from headrace.errors import BrokerUnavailable, ControlUnavailable
from headrace.extras import require
from headrace.supervisor.servers.broker_alone import broker_alone
from headrace.supervisor.state.state_dir import StateDir

T = TypeVar("T")
_SQLITE = "sqlite:///"
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class DatabaseTarget:
    """The database at a URL, or else that of a mesh of a state directory; and its broker."""

    state_dir: StateDir
    chosen_url: str | None = field(repr=False)
    nats_url: str | None = None

    @property
    def url(self) -> str:
        return self.chosen_url or f"{_SQLITE}{self.state_dir.control / 'headrace.db'}"

    def require_database(self) -> None:
        """Refuse a file that there is not: to open it would make it.

        Raises:
            ClickException: it says which.
        """
        path = Path(self.url.removeprefix(_SQLITE))
        if self.url.startswith(_SQLITE) and not path.exists():
            raise click.ClickException(
                f"there is no database at {path}; name another with --state-dir or --database-url"
            )

    @asynccontextmanager
    async def broker(self, command: str) -> AsyncIterator[Bus | None]:
        """Connect to the broker at --nats-url, or else to that of the state directory, which is
        started for this command if its mesh does not run. None: there is only a database.

        Raises:
            BrokerUnavailable: in place of any BusError, from the body of the `with` too.
        """
        if self.nats_url is not None or (self.chosen_url is None and self.state_dir.is_locked):
            async with open_bus(self.nats_url, self.state_dir, command=command) as bus:
                yield bus
        elif self.chosen_url is not None:
            yield None
        else:
            async with (
                broker_alone(self.state_dir) as (url, credentials),
                _connected(url, credentials, command) as bus,
            ):
                yield bus


@asynccontextmanager
async def _connected(url: str, credentials: Path, command: str) -> AsyncIterator[Bus]:
    try:
        bus = await connect(
            url,
            name=f"headrace {command}",
            wait_s=_CONNECT_S,
            replicas=None,
            credentials_file=credentials,
        )
        try:
            yield bus
        finally:
            await bus.close()
    except BusError as error:
        raise BrokerUnavailable(str(error)) from error


def database_options(command: Callable[..., T]) -> Callable[..., T]:
    """Add `--database-url` and `--state-dir`; the command gets them as `target`. A database that
    cannot be used is said with its reason."""

    @click.option(
        "--database-url",
        envvar="HEADRACE_CONTROL_DATABASE_URL",
        help="sqlite:///PATH or postgresql://... Default: the database of the mesh in --state-dir. "
        "Set HEADRACE_CONTROL_DATABASE_URL instead if it has a password.",
    )
    @state_dir_option
    @wraps(command)
    def with_target(*, database_url: str | None, state_dir: StateDir, **options: Any) -> T:
        nats_url = options.pop("nats_url", None)
        try:
            return command(target=DatabaseTarget(state_dir, database_url, nats_url), **options)
        except ControlUnavailable as error:
            why = error.__cause__ if error.__cause__ is not None else error.message
            reason = str(getattr(why, "orig", None) or why or type(why).__name__)
            raise click.ClickException(f"the database cannot be used: {reason}") from error

    return with_target


broker_option = click.option(
    "--nats-url",
    help="Broker. Default: that of the mesh in --state-dir, which is started for the command if it "
    "does not run; with --database-url alone: none, and only the database is meant.",
)


def control(module: str) -> Any:
    """Import a module of headrace_control, which the extra `control` makes usable.

    Raises:
        MissingExtra: it is not installed.
    """
    # Commands say themselves what fails.
    for name in ("headrace_control", "headrace.database"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    require("control", "sqlalchemy")
    require("control", "alembic")
    return require("control", f"headrace_control.{module}")
