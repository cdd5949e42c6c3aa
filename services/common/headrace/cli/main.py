"""The command's tree, and how it fails: one line that says what is so and what to do.

Exit status: 0 done, 1 it failed, 2 it was asked for something that cannot be.
"""

from __future__ import annotations

import logging
import sys

import click

from headrace.cli.admin.chaos import torture
from headrace.cli.admin.dead_letters import dead_letters
from headrace.cli.admin.lanes import lanes
from headrace.cli.admin.model import model
from headrace.cli.admin.status import status
from headrace.cli.admin.workers import workers
from headrace.cli.mesh.down import down
from headrace.cli.mesh.drain import drain
from headrace.cli.mesh.up import up
from headrace.cli.requests.bench import bench
from headrace.cli.requests.chat import chat
from headrace.cli.requests.generate import generate
from headrace.errors import HeadraceError, RequestError
from headrace.supervisor.state.failures import InvalidOption, MeshError

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="headrace")
def headrace() -> None:
    """Serve language models from this machine: OpenAI's API and gRPC on one port."""


for command in (
    *(up, down, status, generate, chat, bench, torture),
    *(lanes, workers, model, drain, dead_letters),
):
    headrace.add_command(command)


def main() -> None:
    """Entry point."""
    sys.exit(_run())


def _run() -> int:
    # Commands say in words what becomes of their connection; its events are for services.
    logging.getLogger("headrace.bus").setLevel(logging.ERROR)
    try:
        outcome = headrace.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (RequestError, InvalidOption) as error:
        return _say(error, 2)
    # OSError: a folder that cannot be written, a disk that is full.
    except (HeadraceError, MeshError, OSError) as error:
        return _say(error, 1)
    return outcome if isinstance(outcome, int) else 0


def _say(error: Exception, status: int) -> int:
    click.echo(f"headrace: {error}", err=True)
    return status
