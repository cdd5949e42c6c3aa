"""What keeps a batch from being created."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headrace.errors import InsufficientQuota, ResourceExists
from headrace_control.base.batches import FINAL, Batch, NewBatch
from headrace_control.store.database.file_tables import batches


async def check_room(connection: AsyncConnection, tenant: str, limit: int) -> None:
    """
    Raises:
        InsufficientQuota: the tenant has so many batches that have not ended.
    """
    is_open = sa.and_(batches.c.tenant == tenant, batches.c.status.not_in(FINAL))
    query = sa.select(sa.func.count()).select_from(batches).where(is_open)
    if (count := await connection.scalar(query) or 0) >= limit:
        raise InsufficientQuota(
            f"tenant {tenant} has {count} batches that have not ended, and may have {limit}: wait"
            " until one has ended, or cancel one"
        )


def same_batch(batch: Batch, new: NewBatch) -> Batch:
    """Return the batch that has the idempotency key of a new one, which repeats it.

    Raises:
        ResourceExists: it had other parameters.
    """
    was = (batch.new.endpoint, batch.new.input_file_id, batch.new.window, dict(batch.new.metadata))
    if was != (new.endpoint, new.input_file_id, new.window, dict(new.metadata)):
        raise ResourceExists(
            f"the Idempotency-Key is that of batch {batch.batch_id}, which had other parameters",
            field="Idempotency-Key",
        )
    return batch
