"""The options of a mesh, and the processes that they mean. Pure.

headrace up --model org/My-Model --workers 2 --set worker.max_slots=8

MeshOptions(models=(ModelSource("org/My-Model", "my-model"),), workers=2,
            settings=(ServiceSetting(Role.WORKER, "max_slots", "8"),))
services(...) -> scheduler-0          --name scheduler-0
                 worker-my-model-0    --model-source=org/My-Model … --max-slots=8
                 worker-my-model-1    --model-source=org/My-Model … --max-slots=8
                 gateway-0            --advertised-host 127.0.0.1 --lame-duck-s 0
                 control-0            --database-url=sqlite:////…/control/headrace.db
                 web-0                --database-url=sqlite:////…/web/web.db
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path

from headrace.credentials.loopback import is_loopback
from headrace.model_names import invalid_reason, label, name_of_source, parse_names
from headrace.output_parsers.names import ALIASES, AUTO, NONE, REASONING_PARSERS, TOOL_PARSERS
from headrace.rpc.addresses import InvalidAddress, without_zone
from headrace.supervisor.state.failures import InvalidOption

MAX_PROCESSES = 64
"""Of one role and model. More on one machine is a typing mistake."""

LOOPBACK = "127.0.0.1"
"""Address at which the processes of a mesh reach one another."""
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
DEFAULT_SYNC_INTERVAL = "2m"
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_SYNC_INTERVAL = re.compile(r"always|[1-9][0-9]*(ms|s|m|h)")


class Role(StrEnum):
    """Kinds of process, in the order of their start."""

    NATS = "nats"
    SCHEDULER = "scheduler"
    WORKER = "worker"
    GATEWAY = "gateway"
    CONTROL = "control"
    WEB = "web"
    ENVOY = "envoy"


class Auth(StrEnum):
    """What callers need."""

    NONE = "none"
    KEYS = "keys"


_SERVICES = (Role.GATEWAY, Role.SCHEDULER, Role.WORKER, Role.CONTROL, Role.WEB)


class EngineKind(StrEnum):
    TRANSFORMERS = "transformers"
    LLAMA_CPP = "llama-cpp"
    VLLM = "vllm"
    OPENAI = "openai"
    SCRIPTED = "scripted"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What a worker loads, and the names that it is served under."""

    source: str
    name: str
    aliases: tuple[str, ...] = ()
    parsers: tuple[tuple[str, str], ...] = ()
    """Settings that say how it writes calls and reasoning, and their values."""


@dataclass(frozen=True, slots=True)
class ServiceSetting:
    """One setting of every process of a role, by its name in the settings class."""

    role: Role
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """What `headrace up` is given, checked."""

    models: tuple[ModelSource, ...]
    engine: EngineKind = EngineKind.TRANSFORMERS
    workers: int = 1
    """Of each model."""
    gateways: int = 1
    schedulers: int = 1
    host: str = "127.0.0.1"
    port: int = 8080
    """0 picks a free one."""
    tls: bool = False
    """Whether clients reach it by https, and every line inside is encrypted."""
    tls_cert: Path | None = None
    """Certificate for clients, in place of one that the mesh makes."""
    tls_key: Path | None = None
    tls_names: tuple[str, ...] = ()
    """Further host names in the certificate that the mesh makes for clients."""
    auth: Auth = Auth.NONE
    insecure: bool = False
    """Whether other machines may use the mesh without keys."""
    trusted_proxies: int = 0
    """Proxies in front of Envoy, which say in X-Forwarded-For whom they serve."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of pages in browsers that may call the mesh."""
    web: bool = True
    """Whether the page is served, at /ui/."""
    settings: tuple[ServiceSetting, ...] = ()
    ready_within_s: float = 900.0
    """Time for models to load, downloads included."""
    replace_after_s: float = 30.0
    """A process that has not answered for so long is restarted; 0: never. Too small: a machine that
    is busy for a moment loses processes, and those that `headrace chaos` freezes for up to 6 s are
    restarted. Too large: a process that hangs is missing for longer."""

    def __post_init__(self) -> None:
        for option in ("workers", "gateways", "schedulers"):
            if not 1 <= (count := getattr(self, option)) <= MAX_PROCESSES:
                raise InvalidOption(f"--{option} is {count}; it must be from 1 to {MAX_PROCESSES}")
        try:
            ip_address(without_zone(self.host))
        except InvalidAddress as error:
            raise InvalidOption(f"--host: {error}") from None
        except ValueError:
            raise InvalidOption(
                f"--host is {self.host!r}; it must be an IP address, such as 127.0.0.1 or 0.0.0.0"
            ) from None
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidOption("--tls-cert and --tls-key go together")
        self._check_access()
        names = [name for model in self.models for name in (model.name, *model.aliases)]
        if doubles := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidOption(
                f"two models are named {doubles[0]!r}; give another name: --model SOURCE=NAME"
            )

    def _check_access(self) -> None:
        if not (self.is_local or self.insecure or self.auth is Auth.KEYS):
            raise InvalidOption(
                f"--host {self.host} opens the mesh to the network, and whoever reaches it may do "
                "everything; require keys with --auth keys, or state with --insecure that only "
                "those reach it who may"
            )
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise InvalidOption(
                    f"--allow-origin {origin!r} is not an origin, such as https://app.example.com: "
                    "a scheme, a host and, unless it is the scheme's own, a port"
                )

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the public port."""
        return is_loopback(self.host)

    @property
    def has_tls(self) -> bool:
        return self.tls or self.tls_cert is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what whoever starts this mesh must know."""
        if self.is_local:
            return ()
        found = []
        if self.auth is Auth.NONE:
            found.append("whoever reaches the public port may do everything; see --auth")
        if not self.has_tls:
            found.append("prompts, answers and keys cross the network unencrypted; see --tls")
        return tuple(found)

    @property
    def sync_interval(self) -> str:
        """nats-server's: how long an accepted message may be only in the machine's memory."""
        chosen = [s.value for s in self.settings if s.role is Role.NATS]
        return chosen[-1] if chosen else DEFAULT_SYNC_INTERVAL


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One Python process of the mesh."""

    role: Role
    name: str
    flags: tuple[str, ...]
    model: str = ""
    """Primary name of the model that a worker serves."""


DEFAULT_MODEL = ModelSource("default", "valley")
SCRIPTED_MODEL = ModelSource("scripted", "scripted")


def parse_models(texts: Sequence[str], names: Sequence[str]) -> tuple[ModelSource, ...]:
    """Read the values of `--model` and `--name`.

    With `--name` there is one for each `--model`, in their order, and each `--model` is a source
    to its end, equals signs included.
    """
    if not names:
        return tuple(map(parse_model, texts))
    if len(names) != len(texts):
        raise InvalidOption(
            f"--name is given {len(names)} times and --model {len(texts)} times; give either a"
            " --name for each --model, in their order, or none"
        )
    pairs = zip(texts, names, strict=True)
    return tuple(_named(source, name, f"--name {name!r}") for source, name in pairs)


def parse_model(text: str) -> ModelSource:
    """Read SOURCE or SOURCE=NAME[,ALIAS...], split at the first equals sign.

    Without a name, the model is named after the last part of the source, in lower case.
    """
    source, equals, name = text.partition("=")
    if not source:
        raise InvalidOption(f"--model {text!r} has no source; write SOURCE or SOURCE=NAME")
    if not equals:
        name = DEFAULT_MODEL.name if source == DEFAULT_MODEL.source else name_of_source(source)
    return _named(source, name, f"--model {text!r}")


def _named(source: str, names: str, option: str) -> ModelSource:
    found = parse_names(names) or ("",)
    for name in found:
        if (why := invalid_reason(name)) is not None:
            raise InvalidOption(f"the name {name!r} of {option} is invalid: {why}; see SOURCE=NAME")
    return ModelSource(source, found[0], found[1:])


def parse_setting(text: str) -> ServiceSetting:
    """Read SERVICE.NAME=VALUE."""
    path, equals, value = text.partition("=")
    role, dot, name = path.partition(".")
    if path == "nats.sync_interval":
        if not _SYNC_INTERVAL.fullmatch(value):
            raise InvalidOption(f"--set {text!r}: it must be always, or a time such as 500ms or 2m")
        return ServiceSetting(Role.NATS, name, value)
    if role not in _SERVICES or not (dot and name and equals):
        raise InvalidOption(
            f"--set {text!r} is not SERVICE.NAME=VALUE; SERVICE is gateway, scheduler, worker, "
            "control or web, or it is nats.sync_interval"
        )
    return ServiceSetting(Role(role), name, value)


def with_parsers(
    models: Sequence[ModelSource], chosen: Mapping[str, Sequence[str]]
) -> tuple[ModelSource, ...]:
    """Return the models with the parsers that are chosen for each, in their order, or for all.

    `chosen`: the values by setting: tool_parser and reasoning_parser.

    Raises:
        InvalidOption: a name is unknown, or there are more or fewer than models.
    """
    known = {"tool_parser": TOOL_PARSERS, "reasoning_parser": REASONING_PARSERS}
    found: list[list[tuple[str, str]]] = [[] for _ in models]
    for setting, values in chosen.items():
        option = f"--{setting.replace('_', '-')}"
        for value in values:
            if value not in (names := (AUTO, NONE, *known[setting], *ALIASES)):
                raise InvalidOption(f"{option} is {value!r}; it must be one of {', '.join(names)}")
        if len(values) not in (0, 1, len(models)):
            raise InvalidOption(
                f"{option} is given {len(values)} times for {len(models)} models; give it once for"
                " all, or once for each"
            )
        each = list(values) * (len(models) if len(values) == 1 else 1)
        for settings, value in zip(found, each, strict=False):
            settings.append((setting, value))
    return tuple(
        replace(model, parsers=tuple(settings))
        for model, settings in zip(models, found, strict=True)
    )


def services(
    options: MeshOptions, *, mesh_id: str = "", state_folder: str = "."
) -> Iterator[ServicePlan]:
    """Yield every Python process, in the order of their start.

    Args:
        mesh_id: marks the models that this mesh configures; empty: none.
        state_folder: where control and web keep their databases, and control puts the first keys.
    """
    for i in range(options.schedulers):
        yield _service(options, Role.SCHEDULER, f"scheduler-{i}")
    for model in options.models:
        loaded = (
            # As one argument each: a source or a name may begin with a dash.
            *(f"--model-source={model.source}", f"--model-name={model.name}"),
            f"--model-aliases={','.join(model.aliases)}",
            *(f"--{name.replace('_', '-')}={value}" for name, value in model.parsers),
            *([f"--configured-by={mesh_id}"] if mesh_id else []),
            *("--engine", options.engine.value),
            # So that each uses its share of the cores and not all of them.
            *("--workers-here", str(options.workers * len(options.models))),
        )
        for i in range(options.workers):
            yield _service(
                options, Role.WORKER, f"worker-{label(model.name)}-{i}", loaded, model=model.name
            )
    # Why: a host from the environment would be one that the workers here cannot reach.
    here = ("--advertised-host", LOOPBACK)
    names = [",".join((model.name, *model.aliases)) for model in options.models]
    configured = f"--configured-models={json.dumps(names)}"
    # Why: when the only gateway stops there is no other that could take over meanwhile.
    alone = ("--lame-duck-s", "0") if options.gateways == 1 else ()
    for i in range(options.gateways):
        yield _service(options, Role.GATEWAY, f"gateway-{i}", (*here, configured, *alone))
    stored = (
        f"--database-url=sqlite:///{state_folder}/control/headrace.db",
        f"--bootstrap-keys-dir={state_folder}",
    )
    yield _service(options, Role.CONTROL, "control-0", stored)
    if options.web:
        conversations = f"--database-url=sqlite:///{state_folder}/web/web.db"
        yield _service(options, Role.WEB, "web-0", (conversations,))


def _service(
    options: MeshOptions, role: Role, name: str, more: Sequence[str] = (), *, model: str = ""
) -> ServicePlan:
    chosen = [s for s in options.settings if s.role == role]
    flags = [f"--{s.name.replace('_', '-')}={s.value}" for s in chosen]
    return ServicePlan(role, name, ("--name", name, *more, *flags), model)
