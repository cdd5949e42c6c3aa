"""headrace generate"""

from __future__ import annotations

import sys
from typing import Unpack

import click

from headrace.cli.console.options import MeshTarget, mesh_options, model_option, sampling_options
from headrace.cli.requests.queue_line import QueueLine
from headrace.client import Client, Prompt, Sampling


@click.command()
@click.argument("prompt")
@model_option
@click.option(
    "--stream/--no-stream", default=True, help="Print the text as it is generated, or at the end."
)
@sampling_options
@click.option("--seed", type=click.IntRange(min=0), help="Equal seeds give equal output.")
@click.option(
    "--background", is_flag=True, help="Start the request, print its id, and return at once."
)
@click.option("--chat", "as_chat", is_flag=True, help="Apply the model's chat template.")
@mesh_options
def generate(
    *,
    mesh: MeshTarget,
    prompt: str,
    model: str | None,
    stream: bool,
    seed: int | None,
    background: bool,
    as_chat: bool,
    **sampling: Unpack[Sampling],
) -> None:
    """Continue PROMPT. Print the text, and nothing else, to stdout."""
    sent: Prompt = [("user", prompt)] if as_chat else prompt
    with mesh.client() as client:
        name = model or first_model(client)
        if background:
            started = client.generate_in_background(sent, model=name, seed=seed, **sampling)
            click.echo(started.request_id)
        elif stream:
            queue = QueueLine(sys.stderr)
            try:
                for event in client.stream(sent, model=name, seed=seed, **sampling):
                    queue.update(event)
                    click.echo(event.delta.text, nl=False)
            finally:
                queue.clear()
            click.echo()
        else:
            answer = client.generate(sent, model=name, seed=seed, **sampling)
            click.echo(answer.choices[0].text)


def first_model(client: Client) -> str:
    """Return the first model that a worker serves, or else the first that is configured.

    Raises:
        ClickException: no model is configured.
    """
    models = client.models()
    if not models:
        raise click.ClickException(f"the mesh at {client.url} has no model yet; see its workers")
    return max(models, key=lambda model: model.workers > 0).name
