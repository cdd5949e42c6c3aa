"""Every subject of the mesh, and the message that travels on it."""

from __future__ import annotations

import re

REQUESTS = "headrace.requests"
"""Stream of RequestRecord, one subject per lane: headrace.requests.<model>.<priority>."""
RESULTS = "headrace.results"
DEAD_LETTERS = "headrace.dead"

WORKER_REPORTS = "headrace.reports.worker"
"""WorkerReport, from every worker to every scheduler and gateway."""
PREFIX_REPORTS = "headrace.reports.prefixes"
"""PrefixReport, from workers that have some to every scheduler."""
GATEWAY_REPORTS = "headrace.reports.gateway"
"""GatewayReport, from every gateway to every scheduler."""
LANE_REPORTS = "headrace.reports.lanes"
"""LaneReport, from every leader to every gateway."""
BROKER_REPORTS = "headrace.reports.broker"
"""BrokerReport, from the supervisor of the broker to everything connected."""
TRIALS = "headrace.trials"
"""Empty messages, each stored in place of the last: whether the broker can store at all."""

MODEL_NAME = re.compile(r"[a-z0-9-]{1,63}")
"""One form for subject, URL, metric label and Kubernetes name."""
PRIORITIES = ("interactive", "standard", "bulk")
"""Lower-case names of headrace.v1.Priority, most urgent first."""


def lane(model: str, priority: str) -> str:
    """RequestRecord, to be stored."""
    return f"{REQUESTS}.{model}.{priority}"


def result(request_id: str) -> str:
    """ResultRecord, to be stored."""
    return f"{RESULTS}.{request_id}"


def dead_letter(model: str) -> str:
    """DeadLetter, to be stored."""
    return f"{DEAD_LETTERS}.{model}"


def dispatch(worker_id: str) -> str:
    """DispatchRequest -> DispatchResponse."""
    return f"headrace.worker.{worker_id}.dispatch"


def worker_cancel(worker_id: str) -> str:
    """WorkerCancelRequest -> WorkerCancelResponse."""
    return f"headrace.worker.{worker_id}.cancel"


def worker_park(worker_id: str) -> str:
    """WorkerParkRequest -> WorkerParkResponse."""
    return f"headrace.worker.{worker_id}.park"


def settle(model: str) -> str:
    """SettleRequest -> SettleResponse, served by the model's leader."""
    return f"headrace.scheduler.{model}.settle"


def lost(model: str) -> str:
    """LostRequest -> LostResponse, served by the model's leader."""
    return f"headrace.scheduler.{model}.lost"


def park(model: str) -> str:
    """ParkRequest -> ParkResponse, served by the model's leader."""
    return f"headrace.scheduler.{model}.park"


def find(model: str) -> str:
    """FindRequest -> FindResponse, served by the model's leader."""
    return f"headrace.scheduler.{model}.find"


def take_over(model: str) -> str:
    """TakeOverRequest -> TakeOverResponse, served by the model's leader."""
    return f"headrace.scheduler.{model}.take_over"


def drain(name: str) -> str:
    """An empty message, answered with the name by each process that has it."""
    # In hexadecimal, for a name may hold what has a meaning in subjects.
    return f"headrace.control.{name.encode().hex()}.drain"


def notice(gateway_id: str) -> str:
    """NoticeRequest -> NoticeResponse."""
    return f"headrace.gateway.{gateway_id}.notice"
