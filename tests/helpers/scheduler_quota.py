"""Gateways of the scheduler's world that wait for the quota keeper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.internal.v1.reports_pb2 import ParkCause
from headrace.internal.v1.request_pb2 import RequestRecord
from helpers.scheduler_events import lost, point
from helpers.scheduler_models import WorkerModel

if TYPE_CHECKING:
    from helpers.scheduler_world import World


def run_out_of_quota(world: World, worker: WorkerModel, request_id: str, *, reports: bool) -> None:
    """Its gateway accepts nothing more of it, and stops it; its report may get lost."""
    record, client = worker.running[request_id], world.clients[request_id]
    if world.is_connected(request_id) and client.newest == record.attempt > client.fence:
        client.waits_for_quota = True
        stop_for_quota(world, worker, record, reports=reports)


def stop_for_quota(
    world: World, worker: WorkerModel, record: RequestRecord, *, reports: bool
) -> None:
    """Its gateway stops an attempt of a request that waits for quota."""
    request_id, client = record.request_id, world.clients[record.request_id]
    client.fence = record.attempt
    del worker.running[request_id]
    if reports:
        stands = point(request_id, record.attempt, client.seen, cause=client.cause)
        world.apply(lost(worker.worker_id, stands))
    world.report(worker)


def grant_quota(world: World, request_id: str, *, reports: bool) -> None:
    client = world.clients[request_id]
    client.waits_for_quota = False
    granted = ParkCause.PARK_CAUSE_QUOTA_GRANTED
    if reports and world.is_connected(request_id):
        world.apply(lost("", point(request_id, client.newest, cause=granted)))
