"""StatementService."""

# ruff: noqa: N802  # methods are named by the proto

from __future__ import annotations

from headrace.admin.v1 import statements_pb2 as pb
from headrace.admin.v1.statements_pb2_grpc import StatementServiceServicer
from headrace.billing.currencies import digits_of
from headrace.billing.money import amount_text, nanos_of
from headrace.billing.months import checked_month
from headrace.errors import InvalidRequest, ResourceNotFound
from headrace_control.api.callers import current_caller
from headrace_control.api.calls import Context
from headrace_control.api.parts import Parts
from headrace_control.api.resource_names import id_in, ids_in
from headrace_control.api.tenancy import fields, rules
from headrace_control.base.accounts.statement import Account, Line, Statement
from headrace_control.base.published_rows import time_of
from headrace_control.store import PageOptions

_NAME = "tenants/{tenant}/statements/{month}"
MAX_REASON, MAX_AMOUNT_NANOS = 500, 10**18


class StatementService(StatementServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._statements = parts.store.statements
        self._by_key = parts.settings.statement_lines_by_key

    async def GetStatement(self, request: pb.GetStatementRequest, context: Context) -> pb.Statement:
        account, month = await self._named(request.name, request.account_id)
        return _message(await self._statements.get(account, month, by_key=self._by_key))

    async def ListStatements(
        self, request: pb.ListStatementsRequest, context: Context
    ) -> pb.ListStatementsResponse:
        tenant = id_in(request.parent, "tenants/{tenant}", field="parent")
        account = await self._account(tenant, request.account_id)
        options = PageOptions(request.page_size, request.page_token)
        page = await self._statements.list(account, options=options)
        found = pb.ListStatementsResponse(next_page_token=page.next_page_token)
        for each in page.items:
            message = _message(each)
            message.ClearField("lines")
            found.statements.append(message)
        return found

    async def CloseStatement(
        self, request: pb.CloseStatementRequest, context: Context
    ) -> pb.Statement:
        account, month = await self._named(request.name, request.account_id)
        by = rules.actor(current_caller())
        closed = await self._statements.close(
            account, month, early=request.early, by_key=self._by_key, by=by
        )
        return _message(closed)

    async def CorrectStatement(
        self, request: pb.CorrectStatementRequest, context: Context
    ) -> pb.CorrectStatementResponse:
        account, month = await self._named(request.name, request.account_id)
        reason = fields.text(request.reason, "reason", longest=MAX_REASON)
        if not reason:
            raise InvalidRequest("reason is empty; the statement shows it", field="reason")
        amount, by = _amount(request.amount), rules.actor(current_caller())
        await self._statements.correct(account, month, amount, reason, by=by)
        return pb.CorrectStatementResponse()

    async def _named(self, name: str, account_id: str) -> tuple[Account, str]:
        tenant, month = ids_in(name, _NAME)
        try:
            checked_month(month)
        except ValueError as error:
            raise InvalidRequest(f"name: {error}", field="name") from None
        return await self._account(tenant, account_id), month

    async def _account(self, tenant: str, account_id: str) -> Account:
        """Return the account that a caller names.

        Raises:
            ResourceNotFound: there is none that the caller may see.
        """
        caller = current_caller()
        rules.require_tenant(caller, tenant)
        account = await self._statements.account(tenant, account_id)
        if account.delete_time is not None and not caller.is_operator:
            # Why: whoever has the name now is not whom it was of.
            raise ResourceNotFound(f"account {account_id} of tenant {tenant} not found")
        return account


def _amount(text: str) -> int:
    try:
        found = nanos_of(text)
    except ValueError as error:
        raise InvalidRequest(f"amount: {error}", field="amount") from None
    if abs(found) > MAX_AMOUNT_NANOS:
        most = amount_text(MAX_AMOUNT_NANOS, digits=0)
        raise InvalidRequest(f"amount is {text}; it may be {most} at most", field="amount")
    return found


def _message(statement: Statement) -> pb.Statement:
    account, digits = statement.account, digits_of(statement.account.currency)
    return pb.Statement(
        name=f"tenants/{account.tenant}/statements/{statement.month}",
        month=statement.month,
        account_id=account.account_id,
        tenant_create_time=fields.timestamp(account.create_time),
        tenant_delete_time=fields.timestamp(account.delete_time),
        time_zone=account.time_zone,
        begin_time=fields.timestamp(time_of(statement.begin_ms)),
        end_time=fields.timestamp(time_of(statement.end_ms)),
        currency=account.currency,
        open=statement.is_open,
        as_of_time=fields.timestamp(statement.as_of),
        lines=(_line(each, digits) for each in statement.lines),
        total=amount_text(statement.total_nanos, digits=digits),
        exact_nanos=statement.exact_nanos,
        sequence=statement.sequence,
        hash=statement.hash,
    )


def _line(line: Line, digits: int) -> pb.StatementLine:
    return pb.StatementLine(
        model=line.model,
        key=line.key_id,
        kind=line.kind,
        batch=line.batch,
        corrects_month=line.corrects,
        reason=line.reason,
        requests=line.requests,
        input_tokens=line.input_tokens,
        cached_input_tokens=line.cached_input_tokens,
        output_tokens=line.output_tokens,
        input_nanos=line.input_nanos,
        cached_input_nanos=line.cached_input_nanos,
        output_nanos=line.output_nanos,
        exact_nanos=line.exact_nanos,
        amount=amount_text(line.amount_nanos, digits=digits),
        unpriced=line.unpriced,
    )
