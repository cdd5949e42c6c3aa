"""headrace batch"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx

from headrace.cli.console import terminal
from headrace.cli.console.openai_api import answer_of, check, openai_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.cli.requests.batch_progress import FINAL, wait_for_end

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_PAGE = 100


@click.group()
def batch() -> None:
    """Run the rows of a file as a batch; list, show, wait for or cancel one; print its output."""


@batch.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--endpoint", type=click.Choice(ENDPOINTS), required=True, help="Of all rows.")
@click.option("--window", default="24h", help="Time for all rows: minutes or hours, as 90m or 24h.")
@click.option(
    "--metadata", "pairs", multiple=True, metavar="KEY=VALUE", help="Note. May be repeated."
)
@click.option("--wait", is_flag=True, help="Wait for its end. Exit with 1 unless it completes.")
@json_option
@mesh_options
def create(
    *,
    mesh: MeshTarget,
    file: Path,
    endpoint: str,
    window: str,
    pairs: tuple[str, ...],
    wait: bool,
    as_json: bool,
) -> int:
    """Upload FILE, whose lines are requests in OpenAI's format, and run it as a batch."""
    metadata = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    with openai_api(mesh) as http:
        with file.open("rb") as content:
            form = {"file": (file.name, content)}
            uploaded = answer_of(http.post("/v1/files", files=form, data={"purpose": "batch"}))
        body: dict[str, Any] = {
            "input_file_id": uploaded["id"],
            "endpoint": endpoint,
            "completion_window": window,
        }
        if metadata:
            body["metadata"] = metadata
        found = answer_of(http.post("/v1/batches", json=body))
        if wait:
            found = wait_for_end(http, found)
    _print(found, as_json=as_json)
    return 1 if wait and found["status"] != "completed" else 0


@batch.command()
@click.argument("batch_id", metavar="BATCH")
@json_option
@mesh_options
def wait(*, mesh: MeshTarget, batch_id: str, as_json: bool) -> int:
    """Wait for the end of a batch, and show how far it is. Exit with 1 unless it completes."""
    with openai_api(mesh) as http:
        found = wait_for_end(http, answer_of(http.get(f"/v1/batches/{batch_id}")))
    _print(found, as_json=as_json)
    return 0 if found["status"] == "completed" else 1


@batch.command("list")
@json_option
@mesh_options
def list_batches(*, mesh: MeshTarget, as_json: bool) -> None:
    """List the batches of the key's tenant, the newest first."""
    with openai_api(mesh) as http:
        found = _all(http)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    table = terminal.table("batch", "endpoint", "status", "rows", "failed", "created")
    for each in found:
        counts = each["request_counts"]
        rows = f"{counts['completed'] + counts['failed']}/{counts['total']}"
        columns = each["id"], each["endpoint"], each["status"], rows, str(counts["failed"])
        table.add_row(*columns, _shown(each["created_at"]))
    terminal.console().print(table if found else "no batches")


@batch.command()
@click.argument("batch_id", metavar="BATCH")
@json_option
@mesh_options
def show(*, mesh: MeshTarget, batch_id: str, as_json: bool) -> None:
    """Show a batch: its progress, its files, and what is wrong with its input."""
    with openai_api(mesh) as http:
        found = answer_of(http.get(f"/v1/batches/{batch_id}"))
    _print(found, as_json=as_json)


@batch.command()
@click.argument("batch_id", metavar="BATCH")
@json_option
@mesh_options
def cancel(*, mesh: MeshTarget, batch_id: str, as_json: bool) -> None:
    """Cancel a batch. Rows that are finished stay in its output."""
    with openai_api(mesh) as http:
        found = answer_of(http.post(f"/v1/batches/{batch_id}/cancel"))
    _print(found, as_json=as_json)


@batch.command()
@click.argument("batch_id", metavar="BATCH")
@click.option("--errors", is_flag=True, help="Print the rows that failed in their place.")
@mesh_options
def output(*, mesh: MeshTarget, batch_id: str, errors: bool) -> None:
    """Print the answers of a batch that has ended, a line for each row, in the rows' order."""
    with openai_api(mesh) as http:
        found = answer_of(http.get(f"/v1/batches/{batch_id}"))
        if found["status"] not in FINAL:
            raise click.ClickException(f"batch {batch_id} is {found['status']}; wait for its end")
        file_id = found["error_file_id" if errors else "output_file_id"]
        if file_id is None:
            what = "no row failed" if errors else "no row has an answer"
            click.echo(f"{what}; `headrace batch show {batch_id}` says more", err=True)
            return
        with http.stream("GET", f"/v1/files/{file_id}/content") as answer:
            check(answer)
            for piece in answer.iter_bytes():
                sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _all(http: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: dict[str, Any] = {}
    while True:
        page = answer_of(http.get("/v1/batches", params={"limit": _PAGE, **after}))
        found += page["data"]
        if not page["has_more"]:
            return found
        after = {"after": page["last_id"]}


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    counts, usage = found["request_counts"], found["usage"]
    facts = {
        "batch": found["id"],
        "status": found["status"],
        "endpoint": found["endpoint"],
        "rows": f"{counts['completed']} completed, {counts['failed']} failed of {counts['total']}",
        "tokens": f"{usage['input_tokens']} in, {usage['output_tokens']} out",
        "input file": found["input_file_id"],
        "output file": found["output_file_id"] or "-",
        "error file": found["error_file_id"] or "-",
        "created": _shown(found["created_at"]),
        "expires": _shown(found["expires_at"]),
    }
    for name, value in facts.items():
        click.echo(f"{name:<13}{value}")
    for error in (found["errors"] or {"data": []})["data"]:
        where = f"line {error['line']}: " if error["line"] else ""
        click.echo(f"{where}{error['message']} ({error['code']})")


def _shown(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S}Z"
