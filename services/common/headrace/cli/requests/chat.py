"""headrace chat"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from headrace.cli.console.options import mesh_options, mesh_url
from headrace.cli.requests.generate import first_model
from headrace.cli.requests.queue_line import QueueLine
from headrace.client import Client, Sampling
from headrace.errors import HeadraceError, RequestError

_BYE = "/exit"
_RESET = "/reset"


@click.command()
@click.option("--model", help="Served name. Default: the first that the mesh has.")
@click.option("--system", help="What the model is told before anything else.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Of each answer.")
@click.option("--temperature", type=float, help="0 is greedy. Default: the model's.")
@mesh_options
def chat(
    url: str | None,
    state_dir: Path,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
) -> None:
    """Talk with a model. Ctrl-C ends an answer; /reset forgets, /exit leaves."""
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
    with Client(mesh_url(url, state_dir)) as client:
        name = model or first_model(client)
        click.echo(f"{name}: /reset to begin again, {_BYE} or Ctrl-D to leave")
        beginning = [("system", system)] if system else []
        conversation = Conversation(client, name, beginning, sampling)
        while (line := _ask()) is not None:
            if line == _RESET:
                conversation.reset()
            elif line:
                conversation.say(line)


class Conversation:
    """Turns so far. A turn that fails is as if it had not been said."""

    def __init__(
        self,
        client: Client,
        model: str,
        beginning: list[tuple[str, str]],
        sampling: Sampling,
    ) -> None:
        self._client = client
        self._model = model
        self._beginning = beginning
        self._sampling = sampling
        self._turns = list(beginning)

    def reset(self) -> None:
        self._turns = list(self._beginning)

    def say(self, line: str) -> None:
        """Print the answer as it comes; Ctrl-C keeps what has come of it."""
        asked = [*self._turns, ("user", line)]
        answer, queue = "", QueueLine(sys.stderr)
        try:
            for event in self._client.stream(asked, model=self._model, **self._sampling):
                queue.see(event)
                answer += event.delta.text
                click.echo(event.delta.text, nl=False)
        except KeyboardInterrupt:
            queue.clear()
            click.echo(" (ended)", nl=False)
        except HeadraceError as error:
            queue.clear()
            hint = f"; {_RESET} begins again" if isinstance(error, RequestError) else ""
            click.echo(f"headrace: {error}{hint}", err=True)
            return
        click.echo()
        self._turns = [*asked, ("assistant", answer)]


def _ask() -> str | None:
    """The next line; None to leave."""
    try:
        line = input("> ").strip()
    except EOFError:
        click.echo()
        return None
    except KeyboardInterrupt:
        click.echo()
        return ""
    return None if line == _BYE else line
