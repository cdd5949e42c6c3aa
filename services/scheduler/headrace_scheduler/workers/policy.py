"""The numbers by which the pure rooms decide; `settings.SchedulerSettings` documents each."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace_scheduler.request.fairness import Shares
from headrace_scheduler.workers.forming import BatchLimits
from headrace_scheduler.workers.routing import RoutingLimits


@dataclass(frozen=True, slots=True)
class Policy:
    """Frozen settings as the state machine needs them."""

    limits: BatchLimits = field(default_factory=BatchLimits)
    shares: Shares = field(default_factory=Shares)
    preemption: bool = True
    max_preemptions: int = 10
    max_waiting: int = 512
    max_attempts: int = 3
    worker_silence_s: float = 3.0
    gateway_silence_s: float = 5.0
    orphan_grace_s: float = 30.0
    max_orphans: int = 2048
    adoption_window_s: float = 1.5
    settle_grace_s: float = 5.0
    deadline_grace_s: float = 1.0
    notice_repeat_s: float = 1.0
    stray_grace_s: float = 30.0
    routing: RoutingLimits = field(default_factory=RoutingLimits)
    rate_half_life_s: float = 15.0
