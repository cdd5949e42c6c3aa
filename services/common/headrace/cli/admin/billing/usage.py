"""headrace usage"""

from __future__ import annotations

import click

from headrace.cli.admin.billing.statement import close, correct, list_statements, statement


@click.group()
def usage() -> None:
    """See what tenants owe for what they used, and close months."""


for command in (statement, list_statements, close, correct):
    usage.add_command(command)
