"""How long processes may take to stop, added up from their settings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace.supervisor.plan.mesh_options import Role, ServiceSetting

STOP_ORDER = (Role.GATEWAY, Role.WORKER, Role.SCHEDULER, Role.ENVOY, Role.NATS)
"""Gateways first: they refuse what is new and finish what is open, which needs all the rest."""


@dataclass(frozen=True, slots=True)
class StopTimes:
    """What a process does between SIGTERM and its end."""

    waits: Mapping[str, float]
    """Settings that say how long it may wait, each with its default."""
    rest_s: float
    """For all that has no setting: last words, reports, its way out."""


STOP_TIMES: Mapping[Role, StopTimes] = {
    Role.GATEWAY: StopTimes({"lame_duck_s": 3.0, "drain_s": 30.0, "settle_s": 5.0}, 7.0),
    Role.WORKER: StopTimes({"drain_s": 20.0}, 18.0),
    Role.SCHEDULER: StopTimes({"drain_s": 1.0}, 9.0),
    Role.ENVOY: StopTimes({}, 5.0),
    Role.NATS: StopTimes({}, 15.0),
}


def stop_timeout_s(role: Role, settings: Iterable[ServiceSetting]) -> float:
    """After this time the process is taken to hang: the supervisor kills it, as Kubernetes does
    after terminationGracePeriodSeconds, which must not be less."""
    stop = STOP_TIMES[role]
    waits = dict(stop.waits)
    for setting in settings:
        if setting.role is role and setting.name in waits:
            waits[setting.name] = _seconds(setting.value, waits[setting.name])
    return sum(waits.values()) + stop.rest_s


def mesh_stop_timeout_s(settings: Iterable[ServiceSetting]) -> float:
    """For a whole mesh: one role after the other."""
    chosen = tuple(settings)
    return sum(stop_timeout_s(role, chosen) for role in STOP_ORDER)


def _seconds(text: str, default: float) -> float:
    """The service itself refuses what is no number."""
    try:
        return float(text)
    except ValueError:
        return default
