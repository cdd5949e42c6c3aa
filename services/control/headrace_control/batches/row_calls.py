"""Calls gateways for rows."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from headrace.errors import CapacityError, GatewayUnreachable, HeadraceError
from headrace.internal.v1.rows_pb2 import (
    CancelRowRequest,
    CheckModelsRequest,
    CheckModelsResponse,
    RowCaller,
    RunRowRequest,
    RunRowResponse,
)
from headrace.rpc.delivery_secret import DeliverySecret
from headrace.rpc.status import from_rpc_error
from headrace_control.base.batches import Batch, Owner
from headrace_control.batches.gateways import Gateway, Gateways
from headrace_control.batches.input_rows import InputRow

_ASK_S = 5.0
"""Longest wait for a gateway's answer to what takes it no time."""


class GatewayRows:
    """The `RowRunner` of control: each row is called for at one gateway."""

    def __init__(self, gateways: Gateways, secret: DeliverySecret) -> None:
        self._gateways, self._secret = gateways, secret
        self._called_at: dict[tuple[str, int], Gateway] = {}

    async def run(self, batch: Batch, row: InputRow, *, is_fresh: bool) -> RunRowResponse:
        """As `RowRunner` has it."""
        request = RunRowRequest(
            batch_id=batch.batch_id,
            line=row.line,
            endpoint=batch.new.endpoint,
            body=row.body,
            caller=_caller(batch.new.owner),
            fresh=is_fresh,
        )
        request.deadline.FromDatetime(batch.expire_time)
        gateway, key = self._gateway(), (batch.batch_id, row.line)
        gateway.rows += 1
        self._called_at[key] = gateway
        try:
            response: RunRowResponse = await gateway.service.RunRow(
                request, metadata=self._secret.metadata()
            )
            return response
        except grpc.aio.AioRpcError as error:
            raise _unreachable(error) from None
        finally:
            gateway.rows -= 1
            self._called_at.pop(key, None)

    async def cancel(self, batch: Batch, line: int) -> None:
        """As `RowRunner` has it."""
        if (gateway := self._called_at.get((batch.batch_id, line))) is None:
            return
        request = CancelRowRequest(
            tenant=batch.new.owner.tenant, batch_id=batch.batch_id, line=line
        )
        try:
            await gateway.service.CancelRow(
                request, metadata=self._secret.metadata(), timeout=_ASK_S
            )
        except grpc.aio.AioRpcError as error:
            raise _unreachable(error) from None

    async def refusals(self, owner: Owner, models: Sequence[str]) -> dict[str, str]:
        """As `RowRunner` has it."""
        request = CheckModelsRequest(caller=_caller(owner), models=models)
        try:
            service = self._gateway().service
            response: CheckModelsResponse = await service.CheckModels(
                request, metadata=self._secret.metadata(), timeout=_ASK_S
            )
        except grpc.aio.AioRpcError as error:
            raise _unreachable(error) from None
        refusals = zip(models, response.refusals, strict=True)
        return {model: message for model, message in refusals if message}

    def _gateway(self) -> Gateway:
        if (gateway := self._gateways.pick()) is None:
            raise GatewayUnreachable("no gateway reports that it runs rows of batches")
        return gateway


def _unreachable(error: grpc.aio.AioRpcError) -> HeadraceError:
    """Return why a call has no answer. None of these is the row's own."""
    found = from_rpc_error(error)
    return found if isinstance(found, CapacityError) else GatewayUnreachable(found.message)


def _caller(owner: Owner) -> RowCaller:
    return RowCaller(
        tenant=owner.tenant,
        key_id=owner.key_id,
        person=owner.person,
        scopes=owner.scopes,
        models=owner.models,
    )
