"""headrace generate"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from headrace.cli.console.options import mesh_options, mesh_url
from headrace.cli.requests.queue_line import QueueLine
from headrace.client import Client, Sampling


@click.command()
@click.argument("prompt")
@click.option("--model", help="Served name. Default: the first that the mesh has.")
@click.option("--stream/--no-stream", default=True, help="Print as it is made, or at the end.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Output tokens at most.")
@click.option("--temperature", type=float, help="0 is greedy. Default: the model's.")
@click.option("--seed", type=click.IntRange(min=0), help="Equal seeds give equal output.")
@click.option(
    "--detach", is_flag=True, help="Print the request's name, and let it go on without us."
)
@click.option("--chat", "as_chat", is_flag=True, help="Render the model's chat template first.")
@mesh_options
def generate(
    prompt: str,
    url: str | None,
    state_dir: Path,
    model: str | None,
    stream: bool,
    as_chat: bool,
    **parameters: float | None,
) -> None:
    """Continue PROMPT; text goes to stdout and nothing else."""
    seed, detach = parameters.pop("seed"), parameters.pop("detach")
    sampling: Sampling = {}
    if (max_tokens := parameters["max_tokens"]) is not None:
        sampling["max_tokens"] = int(max_tokens)
    if (temperature := parameters["temperature"]) is not None:
        sampling["temperature"] = temperature
    chosen_seed = None if seed is None else int(seed)
    asked = [("user", prompt)] if as_chat else prompt
    with Client(mesh_url(url, state_dir)) as client:
        name = model or first_model(client)
        if detach:
            click.echo(client.detach(asked, model=name, seed=chosen_seed, **sampling).request_id)
        elif stream:
            queue = QueueLine(sys.stderr)
            try:
                for event in client.stream(asked, model=name, seed=chosen_seed, **sampling):
                    queue.see(event)
                    click.echo(event.delta.text, nl=False)
            finally:
                queue.clear()
            click.echo()
        else:
            answer = client.generate(asked, model=name, seed=chosen_seed, **sampling)
            click.echo(answer.choices[0].text)


def first_model(client: Client) -> str:
    """One that a worker serves, if there is any. Raises ClickException if none is known."""
    models = client.models()
    if not models:
        raise click.ClickException(f"the mesh at {client.url} has no model yet; see its workers")
    return max(models, key=lambda model: model.workers > 0).name
