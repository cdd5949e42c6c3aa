"""headrace chat"""

from __future__ import annotations

import sys
from typing import Unpack

import click

from headrace.cli.console.options import MeshTarget, mesh_options, model_option, sampling_options
from headrace.cli.requests.generate import first_model
from headrace.cli.requests.queue_line import QueueLine
from headrace.client import Client, Sampling
from headrace.errors import HeadraceError, RequestError

_EXIT = "/exit"
_RESET = "/reset"


@click.command()
@model_option
@click.option("--system", help="System message at the beginning of the conversation.")
@sampling_options
@mesh_options
def chat(
    mesh: MeshTarget, model: str | None, system: str | None, **sampling: Unpack[Sampling]
) -> None:
    """Chat with a model. Ctrl-C ends an answer; /reset starts again, /exit ends the chat."""
    with mesh.client() as client:
        name = model or first_model(client)
        click.echo(f"{name}: {_RESET} to start again, {_EXIT} or Ctrl-D to end")
        conversation = Conversation(client, name, system, sampling)
        while (line := _read_line()) is not None:
            if line == _RESET:
                conversation.reset()
            elif line:
                conversation.send(line)


class Conversation:
    """The messages so far. A message whose answer failed is dropped."""

    def __init__(self, client: Client, model: str, system: str | None, sampling: Sampling) -> None:
        self._client, self._model, self._sampling = client, model, sampling
        self._first = [("system", system)] if system else []
        self._messages = list(self._first)

    def reset(self) -> None:
        self._messages = list(self._first)

    def send(self, line: str) -> None:
        """Send a message and print the answer as it comes; after Ctrl-C its beginning is kept."""
        sent = [*self._messages, ("user", line)]
        answer, queue = "", QueueLine(sys.stderr)
        try:
            for event in self._client.stream(sent, model=self._model, **self._sampling):
                queue.update(event)
                answer += event.delta.text
                click.echo(event.delta.text, nl=False)
        except KeyboardInterrupt:
            queue.clear()
            click.echo(" (ended)", nl=False)
        except HeadraceError as error:
            queue.clear()
            hint = f"; {_RESET} starts again" if isinstance(error, RequestError) else ""
            click.echo(f"headrace: {error}{hint}", err=True)
            return
        click.echo()
        self._messages = [*sent, ("assistant", answer)]


def _read_line() -> str | None:
    """Return the next line; None ends the chat."""
    try:
        line = input("> ").strip()
    except EOFError:
        click.echo()
        return None
    except KeyboardInterrupt:
        click.echo()
        return ""
    return None if line == _EXIT else line
