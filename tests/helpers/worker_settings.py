"""Settings of a worker, for tests; the environment is not read."""

from __future__ import annotations

from headrace_worker.base.settings import WorkerSettings


def worker_settings(**values: object) -> WorkerSettings:
    """Settings with these values, the others at their defaults."""
    return WorkerSettings.model_validate(values)
