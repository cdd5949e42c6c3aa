"""Settings of a service: from flags, else the environment, else a file, else defaults.

Each service has one frozen class that derives from `ServiceSettings`. Nothing else in Headrace
reads the environment. Unknown names are rejected everywhere, so that a misspelt setting cannot
silently keep its default:

    python -m headrace_worker --max-slots 8          max_slots = 8
    HEADRACE_WORKER_MAX_SLOTS=4                      the flag wins: 8
    HEADRACE_WORKER_CONFIG=worker.toml               the environment wins over max_slots = 2 there
    HEADRACE_WORKER_MAX_SLOT=4                       exit 2: "…_MAX_SLOT: no such setting"
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import uvloop
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliImplicitFlag,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from headrace.credentials.loopback import is_loopback
from headrace.credentials.secret_files import check_secret_file
from headrace.credentials.tls_files import TlsFiles, TlsPaths

S = TypeVar("S", bound="ServiceSettings")


_PLAIN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_LONGEST_NAME = 128


class InvalidSettings(Exception):
    """Invalid settings; `lines` has a line for each fault."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def _own_name() -> str:
    return os.environ.get("POD_NAME") or socket.gethostname().partition(".")[0] or "one"


class ServiceSettings(BaseSettings):
    """Settings of every service. Derived classes set `env_prefix`, as in HEADRACE_WORKER_."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, env_parse_none_str="none"
    )

    name: str = Field(default="", validate_default=True)
    """Name of this process in reports, logs, `headrace status` and subjects of the broker: up to
    128 letters, digits, _ and -, with single dots between. Unset: POD_NAME of the environment, or
    this machine's name. Processes may share a name: the ids made from it differ."""
    nats_url: str = "nats://127.0.0.1:4222"
    """Broker, or several of a cluster, with commas between. May contain user and password, which
    are never logged."""
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Servers of a NATS cluster that store each request, result, lease and model card; the same for
    all processes of a mesh. 1: without that server the mesh waits, and its disk is the only copy.
    3: any one server may fail; each request costs the broker about three times as much."""
    nats_credentials_file: Path | None = None
    """File with one line user:password, for the broker; goes before a user in the URL. It must be
    readable by this process alone (mode 0600), and is read again at each reconnect."""
    tls_ca_file: Path | None = None
    """Certificates of the authority that signs all processes of the mesh, in PEM. With it come
    `tls_cert_file` and `tls_key_file`. Then every line inside the mesh, gRPC and NATS, is TLS 1.3,
    and both its ends prove who they are. The three files are read again when they change."""
    tls_cert_file: Path | None = None
    """Certificate of this process, in PEM. Its name spiffe://headrace/ROLE/NAME says what the
    process may call, and the DNS name ROLE.headrace.internal is what others check where they call
    it, in place of its address."""
    tls_key_file: Path | None = None
    """Key of that certificate, in PEM; readable by this process alone (mode 0600)."""
    host: str = "127.0.0.1"
    """Address that this process listens on. The default is reachable from this machine only.
    Another one needs the three files for TLS, or `insecure`. /metrics, /healthz and /readyz listen
    there too, without encryption."""
    insecure: CliImplicitFlag[bool] = False
    """Whether this process may listen beyond this machine without TLS, or without keys where it
    answers callers: whoever reaches it there may do everything, as the gateway of another caller.
    Only for networks that nothing else is on."""
    metrics_port: int = 0
    """Port of /metrics, /healthz and /readyz; 0 picks a free one."""
    ports_file: Path | None = None
    """File to write the bound ports to, as JSON {"metrics": 9100, ...}, once all are bound."""
    log_level: str = "info"
    """debug, info, warning or error."""

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        name = name or _own_name()
        if len(name) > _LONGEST_NAME or not _PLAIN.fullmatch(name):
            raise ValueError(
                f"{name[:160]!r} is not 1 to {_LONGEST_NAME} letters, digits, _ and -, with single"
                " dots between"
            )
        return name

    @field_validator("tls_key_file", "nats_credentials_file")
    @classmethod
    def _is_secret(cls, file: Path | None) -> Path | None:
        if file is not None:
            check_secret_file(file)
        return file

    @model_validator(mode="after")
    def _has_all_tls_files(self) -> Self:
        files = (self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
        if any(files) and not all(files):
            raise ValueError("tls_ca_file, tls_cert_file and tls_key_file go together")
        # Read now: an error of theirs is one of the settings.
        _ = self.tls
        return self

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        if is_loopback(self.host) or self.insecure or self.tls_ca_file is not None:
            return self
        raise ValueError(
            f"host {self.host} is reached from other machines, by whom nothing is known: set "
            "tls_ca_file, tls_cert_file and tls_key_file, or else insecure"
        )

    @cached_property
    def tls(self) -> TlsFiles | None:
        """What this process proves itself with; None: the lines of the mesh are plain."""
        if not self.tls_ca_file or not self.tls_cert_file or not self.tls_key_file:
            return None
        return TlsFiles(TlsPaths(self.tls_ca_file, self.tls_cert_file, self.tls_key_file))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources = [init_settings, env_settings]
        if file := os.environ.get(f"{cls.env_prefix()}CONFIG"):
            sources.append(_toml(settings_cls, Path(file)))
        return tuple(sources)

    @classmethod
    def env_prefix(cls) -> str:
        return str(cls.model_config.get("env_prefix", ""))

    @classmethod
    def unknown_environment(cls) -> list[str]:
        """Return the variables with this class's prefix that name no setting.

        pydantic-settings ignores them even where it forbids extra names.
        """
        prefix = cls.env_prefix()
        known = {f"{prefix}{name}".upper() for name in cls.model_fields} | {f"{prefix}CONFIG"}
        return sorted(
            name for name in os.environ if prefix and name.startswith(prefix) and name not in known
        )


def _toml(settings_class: type[BaseSettings], file: Path) -> TomlConfigSettingsSource:
    """Return the file's settings; pydantic-settings would treat a missing file as empty."""
    if not file.is_file():
        raise SettingsError(f"{file}: no such file")
    try:
        return TomlConfigSettingsSource(settings_class, file)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file}: {error}") from error


def load(settings_class: type[S], arguments: list[str]) -> S:
    """Return the settings of this process.

    Raises:
        SystemExit: they are invalid; with status 2 and a line for each fault on stderr.
    """
    try:
        return read(settings_class, arguments)
    except InvalidSettings as error:
        print(*(f"settings: {line}" for line in error.lines), sep="\n", file=sys.stderr)
        sys.exit(2)


def read(settings_class: type[S], arguments: list[str]) -> S:
    """Return the settings that flags, environment and file give now.

    Raises:
        InvalidSettings: with every fault.
        SystemExit: there is an unknown flag.
    """
    if unknown := settings_class.unknown_environment():
        raise InvalidSettings([f"{name}: no such setting" for name in unknown])
    flags = CliSettingsSource[Any](
        settings_class,
        cli_parse_args=arguments,
        cli_kebab_case=True,
        cli_prog_name=f"python -m headrace_{settings_class.env_prefix().split('_')[1].lower()}",
    )
    try:
        return settings_class(_cli_settings_source=flags)  # type: ignore[call-arg]
    except ValidationError as error:
        raise InvalidSettings([_fault(each) for each in error.errors()]) from error
    except SettingsError as error:
        raise InvalidSettings([str(error)]) from error


def _fault(error: ErrorDetails) -> str:
    if not error["loc"]:
        # Why without what was given: that is all settings, and with them passwords.
        return error["msg"]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']} (got {error['input']!r})"


def redacted_json(settings: ServiceSettings) -> str:
    """Return the effective settings as JSON, with secrets and passwords masked."""
    shown = settings.model_dump(mode="json")
    if "@" in settings.nats_url:
        shown["nats_url"] = "nats://***@" + settings.nats_url.rsplit("@", 1)[1]
    return json.dumps(shown, indent=2)


def settings_main(
    settings_class: type[S],
    run: Callable[[S], Coroutine[Any, Any, int]],
    arguments: list[str] | None = None,
) -> int:
    """Run a service with its settings, or print them for `--print-settings`.

    Returns the exit status: 0 drained, 1 failed at run time. Invalid settings exit with 2.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    wants_print = "--print-settings" in arguments
    settings = load(settings_class, [a for a in arguments if a != "--print-settings"])
    if wants_print:
        print(redacted_json(settings))
        return 0
    # Why uvloop: less CPU per message in every service; the figures in docs are with it.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(settings))


def write_ports(settings: ServiceSettings, ports: dict[str, int]) -> None:
    """Write the bound ports to `ports_file`, atomically, so that readers may poll it."""
    if settings.ports_file is None:
        return
    draft = settings.ports_file.with_suffix(".tmp")
    draft.write_text(json.dumps(ports))
    draft.replace(settings.ports_file)
