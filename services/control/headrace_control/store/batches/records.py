"""Rows of the table of batches to records, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from headrace_control.base.batches import Batch, BatchError, NewBatch, Owner, RowUsage
from headrace_control.base.published_rows import EPOCH, time_of


def new_batch_values(new: NewBatch) -> dict[str, Any]:
    owner = asdict(new.owner)
    return {
        "tenant": owner.pop("tenant"),
        "endpoint": new.endpoint,
        "input_file_id": new.input_file_id,
        "completion_window": new.window,
        "metadata": json.dumps(dict(new.metadata)),
        "output_expires_s": new.output_expires_s,
        "idempotency_key": new.idempotency_key or None,
        "owner": json.dumps(owner),
    }


def batch_of(row: sa.Row[Any]) -> Batch:
    values = dict(row._mapping)
    owner = json.loads(values["owner"])
    new = NewBatch(
        owner=Owner(
            values["tenant"],
            owner["key_id"],
            owner["person"],
            tuple(owner["scopes"]),
            tuple(owner["models"]),
        ),
        endpoint=values["endpoint"],
        input_file_id=values["input_file_id"],
        window=values["completion_window"],
        metadata=json.loads(values["metadata"]),
        output_expires_s=values["output_expires_s"],
        idempotency_key=values["idempotency_key"] or "",
    )
    times = {status: time_of(ms) or EPOCH for status, ms in json.loads(values["times"]).items()}
    same = (
        *("batch_id", "status", "total", "completed", "failed", "fed_line", "outcome"),
        *("output_file_id", "error_file_id", "has_output", "has_errors"),
    )
    return Batch(
        new=new,
        times=times,
        expire_time=time_of(values["expire_ms"]) or EPOCH,
        errors=tuple(BatchError(**error) for error in json.loads(values["errors"])),
        usage=RowUsage(**json.loads(values["usage"])),
        **{name: values[name] for name in same},
    )


def errors_text(errors: Iterable[BatchError]) -> str:
    return json.dumps([asdict(error) for error in errors])


def usage_text(usage: RowUsage) -> str:
    return json.dumps(asdict(usage))
