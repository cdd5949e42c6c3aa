"""headrace key limits"""

from __future__ import annotations

import json
from typing import Any

import click
from rich.markup import escape

from headrace.billing.money import amount_text
from headrace.cli.admin.access.values import last_part, shown_time
from headrace.cli.console import terminal
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.v1.own_key_pb2 import LimitUse, OwnKey

_NUMBERS = ("used", "remaining", "value")


@click.command()
@json_option
@mesh_options
def limits(mesh: MeshTarget, as_json: bool) -> None:
    """Show the limits of the key that the command sends: what is used, and what is left.

    The key is that of HEADRACE_API_KEY, or else cli.key of --state-dir.
    """
    with mesh.client() as client:
        found = client.own_key()
    shown = [_as_dict(each, found.currency) for each in found.limits]
    if as_json:
        click.echo(json.dumps({"name": found.name, "tenant": found.tenant, "limits": shown}))
        return
    table = terminal.table("limit", "of", "model", "used", "left", "limit is", "resets")
    for each in shown:
        whose, model = escape(str(each["subject"])), escape(str(each["model"])) or "-"
        numbers = (str(each[name]) for name in _NUMBERS)
        table.add_row(str(each["limit"]), whose, model, *numbers, str(each["reset_time"] or "-"))
    terminal.console().print(table if shown else f"{_name(found)} has no limits")


def _name(found: OwnKey) -> str:
    if found.name:
        return f"key {last_part(found.name)} of tenant {last_part(found.tenant)}"
    return f"tenant {last_part(found.tenant)}"


def _as_dict(use: LimitUse, currency: str) -> dict[str, Any]:
    """Return a limit as `--json` prints it; a budget in the tenant's currency."""
    shown: dict[str, Any] = {"limit": use.limit, "subject": use.subject, "model": use.model}
    for name in _NUMBERS:
        number = getattr(use, name)
        is_money = use.limit == "budget_per_month"
        shown[name] = f"{amount_text(number)} {currency}" if is_money else number
    return shown | {"reset_time": shown_time(use, "reset_time")}
