"""How long processes may take to stop."""

from __future__ import annotations

import pytest

from headrace.settings import ServiceSettings
from headrace.supervisor.plan.mesh_options import Role, parse_setting
from headrace.supervisor.plan.stop_timeouts import STOP_TIMES, mesh_stop_timeout_s, stop_timeout_s
from headrace_gateway.base.settings import GatewaySettings
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_worker.base.settings import WorkerSettings

SETTINGS: dict[Role, type[ServiceSettings]] = {
    Role.GATEWAY: GatewaySettings,
    Role.SCHEDULER: SchedulerSettings,
    Role.WORKER: WorkerSettings,
}


@pytest.mark.parametrize("role", SETTINGS)
def test_the_times_that_are_added_up_are_those_of_the_settings(role: Role) -> None:
    fields = SETTINGS[role].model_fields
    assert {name: fields[name].default for name in STOP_TIMES[role].waits} == STOP_TIMES[role].waits


def test_a_longer_drain_gives_its_process_as_much_longer_to_stop() -> None:
    chosen = [parse_setting("gateway.drain_s=120"), parse_setting("gateway.lame_duck_s=10")]
    assert stop_timeout_s(Role.GATEWAY, []) == 45
    assert stop_timeout_s(Role.GATEWAY, chosen) == 45 + 90 + 7
    assert stop_timeout_s(Role.WORKER, chosen) == 38


def test_a_whole_mesh_stops_one_role_after_the_other() -> None:
    longer = [parse_setting("worker.drain_s=60")]
    assert mesh_stop_timeout_s(longer) == mesh_stop_timeout_s([]) + 40


def test_a_setting_that_is_not_a_number_is_ignored_because_the_service_rejects_it() -> None:
    assert stop_timeout_s(Role.WORKER, [parse_setting("worker.drain_s=long")]) == 38
