"""headrace usage"""

from __future__ import annotations

from typing import Any

import click

from headrace.cli.admin.billing.statement import close, correct, list_statements, statement
from headrace.cli.admin.billing.usage_output import format_options, range_options
from headrace.cli.admin.billing.usage_rows import reconcile, rows
from headrace.cli.admin.billing.usage_sums import GROUPS, checked_groups, show_sums
from headrace.cli.console.list_group import shows_list
from headrace.cli.console.options import CommaSeparated, MeshTarget, mesh_options


@click.group(invoke_without_command=True)
@click.option("--tenant", default="-", help="Whose. Default: all that the key sees.")
@click.option(
    "--by",
    type=CommaSeparated(click.Choice(GROUPS)),
    help=f"What sums are grouped by, with commas: {', '.join(GROUPS)}. Times begin in UTC.",
)
@range_options
@format_options
@mesh_options
@click.pass_context
def usage(
    context: click.Context, /, mesh: MeshTarget, by: tuple[str, ...] | None, **options: Any
) -> None:
    """Show what was used and what it costs, or what tenants owe for a month."""
    if shows_list(context):
        show_sums(mesh, by=checked_groups(by or ()), **options)


for command in (rows, statement, list_statements, close, correct, reconcile):
    usage.add_command(command)
