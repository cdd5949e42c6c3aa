"""Validates the whole input file of a batch before its first row runs."""

from __future__ import annotations

import logging

from headrace.errors import InternalError, InvalidRequest, ResourceNotFound
from headrace_control.base.batches import Batch, BatchError
from headrace_control.base.files import BATCH
from headrace_control.batches.input_rows import InputCheck
from headrace_control.batches.lines import lines_of
from headrace_control.batches.ports import BatchRows, Files, RowRunner

log = logging.getLogger(__name__)

INPUT_LOST = "input_file_not_found"
LOST = (ResourceNotFound, InvalidRequest, InternalError)
"""What files raise of one that is deleted, or whose bytes are."""


async def validate(batch: Batch, store: BatchRows, files: Files, runner: RowRunner) -> None:
    """Start a batch whose input is valid, or fail it with what is wrong.

    Raises:
        CapacityError: no gateway says which models may be used.
        HeadraceError, BusError: the file cannot be read now, or the database cannot be written.
    """
    new, check = batch.new, InputCheck(batch.new.endpoint)
    try:
        file = await files.get(new.owner.tenant, new.input_file_id)
        if file.purpose != BATCH:
            fact = f"The input file has the purpose {file.purpose}; it must be {BATCH}."
            await store.refuse(batch.batch_id, [BatchError("invalid_purpose", fact)])
            return
        async for line, content in lines_of(files.read(file)):
            check.add(line, content)
            if check.is_over:
                break
    except LOST as error:
        await store.refuse(batch.batch_id, [BatchError(INPUT_LOST, error.message)])
        return
    refusals = await runner.refusals(new.owner, check.models) if check.models else {}
    if errors := check.errors(refusals):
        log.info("batch.invalid", extra={"batch_id": batch.batch_id, "errors": len(errors)})
        await store.refuse(batch.batch_id, errors)
    else:
        await store.start(batch.batch_id, check.rows)
