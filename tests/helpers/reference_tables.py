"""The generated tables of docs/operations.md. `make docs` writes them, a test checks them.

python tests/helpers/reference_tables.py docs/operations.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import headrace_gateway.base.metrics
import headrace_scheduler.base.metrics
import headrace_worker.runtime.metrics
from headrace.settings import ServiceSettings
from headrace_gateway.base.settings import GatewaySettings
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_worker.base.settings import WorkerSettings

SETTINGS: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "scheduler": SchedulerSettings,
    "worker": WorkerSettings,
}
METRICS = {
    "gateway": headrace_gateway.base.metrics,
    "scheduler": headrace_scheduler.base.metrics,
    "worker": headrace_worker.runtime.metrics,
}


def settings_table(settings: type[ServiceSettings], *, own: bool) -> str:
    shared = ServiceSettings.model_fields
    rows = ["| setting | default | |", "|---|---|---|"]
    for name, field in (settings.model_fields if own else shared).items():
        if own and name in shared:
            continue
        words = " ".join((field.description or "").split())
        rows.append(f"| `{name}` | `{field.get_default(call_default_factory=True)}` | {words} |")
    return "\n".join(rows)


def metrics_table(module: Any) -> str:
    rows = ["| metric | kind | labels | |", "|---|---|---|---|"]
    for metric in vars(module).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        for family in metric.describe():
            labels = ", ".join(getattr(metric, "_labelnames", ()))
            suffix = "_total" if family.type == "counter" else ""
            help_text = family.documentation
            rows.append(f"| `{family.name}{suffix}` | {family.type} | {labels} | {help_text} |")
    return "\n".join(rows)


def tables() -> dict[str, str]:
    found = {"settings every service": settings_table(ServiceSettings, own=False)}
    for name, settings in SETTINGS.items():
        found[f"settings {name}"] = settings_table(settings, own=True)
    for name, module in METRICS.items():
        found[f"metrics {name}"] = metrics_table(module)
    return found


def filled(text: str) -> str:
    """The document with every marked place holding its table of today."""
    for name, table in tables().items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert mark.search(text), f"no place for {name!r}"
        text = mark.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(filled(document.read_text()))
    print(f"{document}: tables are those of today; {len(list(REGISTRY.collect()))} metrics")
