"""Sends rows to gateways."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.errors import GatewayUnreachable
from headrace.internal.v1.rows_pb2 import (
    CancelRowRequest,
    CheckModelsRequest,
    Row,
    RowAnswer,
    RowBatch,
    RowCaller,
)
from headrace_control.base.batches import Batch, Owner
from headrace_control.batches.input_rows import InputRow
from headrace_control.gateways.registry import Gateways
from headrace_control.gateways.row_stream import Key, RowStream


class GatewayRows:
    """The `RowRunner` of control: each row is sent to one gateway."""

    def __init__(self, gateways: Gateways) -> None:
        self._gateways = gateways
        self._sent_to: dict[Key, RowStream] = {}
        self._last: tuple[Batch, RowBatch] | None = None

    async def run(self, batch: Batch, row: InputRow, *, is_fresh: bool) -> RowAnswer:
        """As `RowRunner` has it."""
        gateway, key = self._gateway(), (batch.batch_id, row.line)
        self._sent_to[key] = gateway
        try:
            sent = Row(line=row.line, body=row.body, fresh=is_fresh)
            return await gateway.run(self._batch(batch), sent)
        finally:
            self._sent_to.pop(key, None)

    async def cancel(self, batch: Batch, line: int) -> None:
        """As `RowRunner` has it."""
        if (gateway := self._sent_to.get((batch.batch_id, line))) is not None:
            tenant = batch.new.owner.tenant
            request = CancelRowRequest(tenant=tenant, batch_id=batch.batch_id, line=line)
            await gateway.cancel(request)

    async def refusals(self, owner: Owner, models: Sequence[str]) -> dict[str, str]:
        """As `RowRunner` has it."""
        request = CheckModelsRequest(caller=_caller(owner), models=models)
        response = await self._gateway().check_models(request)
        refusals = zip(models, response.refusals, strict=True)
        return {model: message for model, message in refusals if message}

    def _batch(self, batch: Batch) -> RowBatch:
        if self._last is None or self._last[0] is not batch:
            self._last = batch, _row_batch(batch)
        return self._last[1]

    def _gateway(self) -> RowStream:
        if (gateway := self._gateways.pick()) is None:
            raise GatewayUnreachable("no gateway reports that it runs rows of batches")
        return gateway


def _row_batch(batch: Batch) -> RowBatch:
    found = RowBatch(
        batch_id=batch.batch_id, endpoint=batch.new.endpoint, caller=_caller(batch.new.owner)
    )
    found.deadline.FromDatetime(batch.expire_time)
    return found


def _caller(owner: Owner) -> RowCaller:
    return RowCaller(
        tenant=owner.tenant,
        key_id=owner.key_id,
        person=owner.person,
        scopes=owner.scopes,
        models=owner.models,
    )
