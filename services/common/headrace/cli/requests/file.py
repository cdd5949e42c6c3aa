"""headrace file"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import click
from rich.markup import escape

from headrace.cli.console import terminal
from headrace.cli.console.openai_api import answer_of, check, openai_api
from headrace.cli.console.options import MeshTarget, json_option, mesh_options
from headrace.cli.console.spans import Span

_PURPOSES = ("batch", "user_data", "fine-tune", "assistants", "vision", "evals")
_PIECE_BYTES = 256 * 1024


@click.group()
def file() -> None:
    """Upload, list, show, download or delete files: the inputs and outputs of batches."""


@file.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--purpose", type=click.Choice(_PURPOSES), default="batch", help="What it is for.")
@click.option(
    "--expires-after",
    type=Span(),
    help="When it is deleted, 1h to 30d. Default: 30d for a batch, else never.",
)
@json_option
@mesh_options
def upload(
    path: Path, mesh: MeshTarget, purpose: str, expires_after: timedelta | None, as_json: bool
) -> None:
    """Upload the file at PATH, of up to 200 MiB, and print its id."""
    fields = {"purpose": purpose}
    if expires_after is not None:
        seconds = str(int(expires_after.total_seconds()))
        fields |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": seconds}
    with (
        openai_api(mesh) as http,
        path.open("rb") as content,
        _progress(path.stat().st_size, path.name) as moved,
    ):
        form = {"file": (path.name, _Watched(content, moved))}
        made = answer_of(http.post("/v1/files", data=fields, files=form))  # type: ignore[arg-type]
    click.echo(json.dumps(made, indent=1) if as_json else made["id"])


@file.command("list")
@click.option("--purpose", help="Only files for this, as batch or batch_output.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, help="Show at most N.")
@json_option
@mesh_options
def list_files(mesh: MeshTarget, purpose: str | None, limit: int, as_json: bool) -> None:
    """List files, the newest first."""
    query: dict[str, str | int] = {"limit": limit}
    if purpose is not None:
        query["purpose"] = purpose
    with openai_api(mesh) as http:
        found = answer_of(http.get("/v1/files", params=query))["data"]
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    table = terminal.table("id", "name", "bytes", "purpose", "status", "created", "expires")
    for each in found:
        table.add_row(*(escape(str(value)) for value in _shown(each).values()))
    terminal.console().print(table if found else "no files")


@file.command()
@click.argument("file_id", metavar="ID")
@json_option
@mesh_options
def show(file_id: str, mesh: MeshTarget, as_json: bool) -> None:
    """Show what is known of the file ID."""
    with openai_api(mesh) as http:
        found = answer_of(http.get(_path(file_id)))
    terminal.print_fields(found if as_json else _shown(found), as_json=as_json)


@file.command()
@click.argument("file_id", metavar="ID")
@click.argument("path", type=click.Path(path_type=Path, allow_dash=True), default="-")
@mesh_options
def download(file_id: str, path: Path, mesh: MeshTarget) -> None:
    """Write the bytes of the file ID to a new file at PATH, or to standard output (-)."""
    with openai_api(mesh) as http, http.stream("GET", f"{_path(file_id)}/content") as response:
        check(response)
        size = int(response.headers["content-length"])
        if str(path) == "-":
            for piece in response.iter_bytes(_PIECE_BYTES):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        with _new_file(path) as output, _progress(size, path.name) as moved:
            try:
                for piece in response.iter_bytes(_PIECE_BYTES):
                    output.write(piece)
                    moved(len(piece))
            except BaseException:
                # A part of a file would be taken for all of it.
                path.unlink()
                raise


@file.command()
@click.argument("file_ids", metavar="ID...", nargs=-1, required=True)
@mesh_options
def delete(file_ids: tuple[str, ...], mesh: MeshTarget) -> None:
    """Delete files."""
    with openai_api(mesh) as http:
        for file_id in file_ids:
            answer_of(http.delete(_path(file_id)))
            click.echo(f"{file_id} is deleted")


def _new_file(path: Path) -> IO[bytes]:
    try:
        return path.open("xb")
    except FileExistsError:
        raise click.ClickException(f"{path} exists: give another PATH") from None


class _Watched:
    """A file of which httpx reads the bytes that it sends."""

    def __init__(self, content: IO[bytes], moved: Callable[[int], object]) -> None:
        self._content, self._moved = content, moved

    def read(self, size: int = -1) -> bytes:
        data = self._content.read(size)
        self._moved(len(data))
        return data

    def fileno(self) -> int:
        return self._content.fileno()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._content.seek(offset, whence)


@contextmanager
def _progress(size: int, label: str) -> Iterator[Callable[[int], object]]:
    """Show a bar on standard error, if that is a terminal; yield what moves it by so many bytes."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=size, label=label, file=sys.stderr, hidden=hidden) as bar:
        yield bar.update


def _path(file_id: str) -> str:
    if not file_id.replace("-", "").isalnum():
        raise click.BadParameter(f"{file_id!r} is no id of a file", param_hint="ID")
    return f"/v1/files/{file_id}"


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": found["id"],
        "name": found["filename"],
        "bytes": found["bytes"],
        "purpose": found["purpose"],
        "status": found["status"],
        "created": _time(found["created_at"]),
        "expires": "never" if found["expires_at"] is None else _time(found["expires_at"]),
    }


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"
