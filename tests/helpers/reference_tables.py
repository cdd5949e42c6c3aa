"""The generated tables in docs/, of settings, metrics and clients: `make docs` writes them.

python tests/helpers/reference_tables.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr

import headrace_control.base.metrics
import headrace_gateway.base.metrics
import headrace_scheduler.base.metrics
import headrace_worker.runtime.metrics
from clients.environments import clients
from headrace.settings import ServiceSettings
from headrace_control.base.settings import ControlSettings
from headrace_gateway.base.settings import GatewaySettings
from headrace_scheduler.base.settings import SchedulerSettings
from headrace_web.base.settings import WebSettings
from headrace_worker.base.settings import WorkerSettings

PAGES = [
    Path(__file__).parents[2] / "docs" / name
    for name in ("configuration.md", "monitoring.md", "clients.md")
]
SETTINGS: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "scheduler": SchedulerSettings,
    "worker": WorkerSettings,
    "control": ControlSettings,
    "web": WebSettings,
}
METRICS = {
    "gateway": headrace_gateway.base.metrics,
    "scheduler": headrace_scheduler.base.metrics,
    "worker": headrace_worker.runtime.metrics,
    "control": headrace_control.base.metrics,
}


def settings_table(settings: type[ServiceSettings], *, own: bool) -> str:
    shared = ServiceSettings.model_fields
    rows = ["| setting | default | |", "|---|---|---|"]
    for name, field in (settings.model_fields if own else shared).items():
        if own and name in shared:
            continue
        words = " ".join((field.description or "").split())
        default = field.get_default(call_default_factory=True)
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        rows.append(f"| `{name}` | `{default}` | {words} |")
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


def clients_table() -> str:
    rows = ["| client | versions that the tests run |", "|---|---|"]
    for client in clients():
        versions = ", ".join(f"`{name}` {version}" for name, version in client.versions().items())
        anchor = client.name.replace("_", "-")
        rows.append(f"| [{client.name.replace('_', ' ')}](#{anchor}) | {versions} |")
    return "\n".join(rows)


def tables() -> dict[str, str]:
    found = {"settings every service": settings_table(ServiceSettings, own=False)}
    for name, settings in SETTINGS.items():
        found[f"settings {name}"] = settings_table(settings, own=True)
    for name, module in METRICS.items():
        found[f"metrics {name}"] = metrics_table(module)
    return {**found, "clients": clients_table()}


def filled(text: str) -> str:
    """Return a page with each of its marked places holding the table of today."""
    for name, table in tables().items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = mark.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
        print(f"{page}: tables are those of today")
