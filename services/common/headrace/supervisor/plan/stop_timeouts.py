"""How long processes may take to stop, summed up from their settings. Pure.

gateway:    lame_duck_s 3 + drain_s 30 + settle_s 5 + 7 for the rest   = 45 s
worker:     drain_s 20 + 18                                           = 38 s
scheduler:  drain_s 1 + 9                                             = 10 s
control and web 10 s each, Envoy 5 s, NATS 15 s; one after the other:   133 s
--set gateway.drain_s=120:                             gateway 135 s, mesh 223 s
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace.supervisor.plan.mesh_options import Role, ServiceSetting

STOP_ORDER = (
    *(Role.GATEWAY, Role.WORKER, Role.SCHEDULER),
    *(Role.WEB, Role.CONTROL, Role.ENVOY, Role.NATS),
)
"""Gateways first: they reject new requests and finish open ones, which needs all the rest. Control
after them: it gets their last reports."""


@dataclass(frozen=True, slots=True)
class StopTimes:
    """What a process does between SIGTERM and its end."""

    waits: Mapping[str, float]
    """Settings that bound its waits, each with its default."""
    rest_s: float
    """For what has no setting: final reports and the exit."""


STOP_TIMES: Mapping[Role, StopTimes] = {
    Role.GATEWAY: StopTimes({"lame_duck_s": 3.0, "drain_s": 30.0, "settle_s": 5.0}, 7.0),
    Role.WORKER: StopTimes({"drain_s": 20.0}, 18.0),
    Role.SCHEDULER: StopTimes({"drain_s": 1.0}, 9.0),
    Role.CONTROL: StopTimes({}, 10.0),
    Role.WEB: StopTimes({}, 10.0),
    Role.ENVOY: StopTimes({}, 5.0),
    Role.NATS: StopTimes({}, 15.0),
}


def stop_timeout_s(role: Role, settings: Iterable[ServiceSetting]) -> float:
    """Return after which time a process that stops is killed.

    Kubernetes' terminationGracePeriodSeconds must not be less.
    """
    times = STOP_TIMES[role]
    waits = dict(times.waits)
    for setting in settings:
        if setting.role is role and setting.name in waits:
            waits[setting.name] = _seconds(setting.value, waits[setting.name])
    return sum(waits.values()) + times.rest_s


def mesh_stop_timeout_s(settings: Iterable[ServiceSetting]) -> float:
    """Return the same for a whole mesh, which stops one role after the other."""
    chosen = tuple(settings)
    return sum(stop_timeout_s(role, chosen) for role in STOP_ORDER)


def _seconds(text: str, default: float) -> float:
    """Return the number; the service itself rejects what is not one."""
    try:
        return float(text)
    except ValueError:
        return default
