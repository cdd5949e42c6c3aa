"""Groups of commands that list without one: `headrace requests`, `headrace dead-letters`."""

from __future__ import annotations

import click
from click.core import ParameterSource


def shows_list(context: click.Context) -> bool:
    """Return whether the group was called without a command.

    Raises:
        UsageError: a command follows options that only the list would read.
    """
    command = context.invoked_subcommand
    if command is None:
        return True
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = name.replace("_", "-")
            raise click.UsageError(
                f"write --{option} behind the command: {context.command_path} {command} --{option}"
            )
    return False
