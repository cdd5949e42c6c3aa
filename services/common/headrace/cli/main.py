"""The tree of commands, and how they fail: one line with the fact and what to do about it.

Exit status: 0 success, 1 failure, 2 invalid options or requests.
"""

from __future__ import annotations

import logging
import sys

import click

from headrace.cli.admin.access.key import key
from headrace.cli.admin.access.member import member
from headrace.cli.admin.access.person import person
from headrace.cli.admin.access.plan import plan
from headrace.cli.admin.access.session import session
from headrace.cli.admin.access.tenant import tenant
from headrace.cli.admin.billing.price import price
from headrace.cli.admin.billing.usage import usage
from headrace.cli.admin.chaos import chaos
from headrace.cli.admin.db.group import db
from headrace.cli.admin.lanes import lanes
from headrace.cli.admin.model import model
from headrace.cli.admin.status import status
from headrace.cli.admin.tls import tls
from headrace.cli.admin.webhook import webhook
from headrace.cli.admin.workers import workers
from headrace.cli.mesh.down import down
from headrace.cli.mesh.up import up
from headrace.cli.operations.audit import audit
from headrace.cli.operations.dead_letters import dead_letters
from headrace.cli.operations.drain import drain
from headrace.cli.operations.fleet import fleet
from headrace.cli.operations.requests import requests
from headrace.cli.requests.batch import batch
from headrace.cli.requests.bench import bench
from headrace.cli.requests.chat import chat
from headrace.cli.requests.file import file
from headrace.cli.requests.generate import generate
from headrace.errors import HeadraceError, InvalidApiKey, RequestError
from headrace.extras import MissingExtra
from headrace.supervisor.state.failures import InvalidOption, MeshError

INTERRUPTED = 130
_WHICH_KEY = (
    "(commands send the key of HEADRACE_API_KEY, or else cli.key or admin.key of --state-dir)"
)
_OTHER_NAMES = {
    "torture": "chaos",
    "forget": "remove",
    "asks": "requests",
    "request": "requests",
    "detach": "background",
}
"""Commands and options that work under other names too, without a line of help. `up` declares
--detach itself, so there both names mean it."""


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
        "token_normalize_func": lambda name: _OTHER_NAMES.get(name, name),
    }
)
@click.version_option(package_name="headrace")
def headrace() -> None:
    """Serve language models from this machine: OpenAI's API and gRPC on one port."""


for command in (
    *(up, down, status, generate, chat, file, batch, bench, chaos),
    *(lanes, workers, model, tls, db, webhook),
    *(requests, fleet, drain, dead_letters, audit),
    *(tenant, plan, key, person, member, session),
    *(price, usage),
):
    headrace.add_command(command)


def main() -> None:
    """Run the command of the process's arguments, and exit."""
    sys.exit(_run())


def _run() -> int:
    # Commands print what becomes of their connections; the log events are for services.
    logging.getLogger("headrace.bus").setLevel(logging.ERROR)
    # It warns of a protocol of its own, each time that a broker with TLS ends a connection.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        outcome = headrace.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except InvalidApiKey as error:
        return _fail(f"{error} {_WHICH_KEY}", 2)
    except (RequestError, InvalidOption) as error:
        return _fail(error, 2)
    # OSError: a folder that cannot be written, a disk that is full.
    except (HeadraceError, MeshError, MissingExtra, OSError) as error:
        return _fail(error, 1)
    return outcome if isinstance(outcome, int) else 0


def _fail(error: Exception | str, status: int) -> int:
    click.echo(f"headrace: {error}", err=True)
    return status
