"""Writes the output and error files of a batch whose outcome is decided.

Both are made of the rows in the database, in the order of their lines, under ids that were decided
with the outcome. So a control process that dies here is followed by one that finds a file complete,
or makes it again, equal; and each row is in one of them, once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from headrace.errors import ResourceNotFound
from headrace_control.base.batches import FAILED, Batch, FinishedRow
from headrace_control.base.files import BATCH_OUTPUT, File, NewFile
from headrace_control.batches.input_rows import parse_row
from headrace_control.batches.lines import lines_of
from headrace_control.batches.output_rows import row_not_run
from headrace_control.batches.ports import BatchRows, Files

_PIECE_BYTES = 256 * 1024


async def finalize(batch: Batch, store: BatchRows, files: Files) -> None:
    """Write the files, and end the batch.

    Raises:
        HeadraceError, BusError: a file cannot be written now, or the input cannot be read.
    """
    has_output = batch.completed > 0
    file = await _input_of_missing(batch, files)
    has_errors = batch.failed > 0 or file is not None
    if has_output:
        output = _texts(_stored(batch, store, succeeded=True))
        await _create(batch, files, "output", batch.output_file_id, output)
    if has_errors:
        errors = (
            _texts(_stored(batch, store, succeeded=False))
            if file is None
            else _errors_and_missing(batch, store, files, file)
        )
        await _create(batch, files, "error", batch.error_file_id, errors)
    await store.finish(batch.batch_id, has_output=has_output, has_errors=has_errors)


async def _input_of_missing(batch: Batch, files: Files) -> File | None:
    """Return the input file if it has rows that did not run; None too where it is lost."""
    if batch.outcome == FAILED or batch.completed + batch.failed >= batch.total:
        return None
    try:
        return await files.get(batch.new.owner.tenant, batch.new.input_file_id)
    except ResourceNotFound:
        return None


async def _create(
    batch: Batch, files: Files, kind: str, file_id: str, lines: AsyncGenerator[str]
) -> None:
    new = NewFile(
        tenant=batch.new.owner.tenant,
        purpose=BATCH_OUTPUT,
        filename=f"{batch.batch_id}_{kind}.jsonl",
        expires_after_s=batch.new.output_expires_s,
    )
    async with aclosing(lines), aclosing(_pieces(lines)) as pieces:
        await files.create(new, pieces, file_id=file_id)


async def _pieces(lines: AsyncIterator[str]) -> AsyncGenerator[bytes]:
    piece = bytearray()
    async for line in lines:
        piece += line.encode() + b"\n"
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


async def _stored(
    batch: Batch, store: BatchRows, *, succeeded: bool
) -> AsyncGenerator[FinishedRow]:
    line = 0
    while rows := await store.rows(batch.batch_id, after=line, succeeded=succeeded):
        for row in rows:
            yield row
        line = rows[-1].line


async def _texts(rows: AsyncGenerator[FinishedRow]) -> AsyncGenerator[str]:
    async with aclosing(rows):
        async for row in rows:
            yield row.text


async def _errors_and_missing(
    batch: Batch, store: BatchRows, files: Files, file: File
) -> AsyncGenerator[str]:
    """Yield the rows that failed, and those of the input that are not in the database."""
    finished = await store.finished_lines(batch.batch_id)
    async with aclosing(_stored(batch, store, succeeded=False)) as failed_rows:
        failed = await anext(failed_rows, None)
        async for line, content in lines_of(files.read(file)):
            if line not in finished:
                custom_id = parse_row(line, content, batch.new.endpoint).custom_id
                yield row_not_run(batch.batch_id, line, custom_id, batch.outcome)
            elif failed is not None and failed.line == line:
                yield failed.text
                failed = await anext(failed_rows, None)
