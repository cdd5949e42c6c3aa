"""StatementService over gRPC, and the commands of `headrace usage` about statements."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headrace.admin.v1 import prices_pb2, tenants_pb2
from headrace.admin.v1 import statements_pb2 as pb
from headrace.errors import FailedPrecondition, InvalidRequest, PermissionDenied, ResourceNotFound
from headrace_control.store import Store
from helpers.command import headrace
from helpers.control_api import ControlApi, refused
from helpers.usage_records import usage_message

NOW = datetime.now(UTC)
MONTH = NOW.strftime("%Y-%m")
NAME = f"tenants/acme/statements/{MONTH}"
Shown = Callable[..., Awaitable[str]]


@pytest.fixture
async def acme(admin: ControlApi, tmp_path: Path) -> ControlApi:
    """A tenant that has just used 1000 tokens of a model, which cost 25 nano-units each."""
    tenant = tenants_pb2.CreateTenantRequest(tenant_id="acme", tenant=tenants_pb2.Tenant())
    await admin.tenants.CreateTenant(tenant)
    price = prices_pb2.Price(model="valley", input_nanos=25_000, output_nanos=25_000)
    await admin.prices.CreatePrice(prices_pb2.CreatePriceRequest(price=price))
    store = await Store.open(f"sqlite:///{tmp_path}/control.db")
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    tokens = {"input_tokens": 600, "cached_input_tokens": 0, "output_tokens": 400}
    message = usage_message(1, **tokens, arrival_ms=now_ms, end_ms=now_ms)
    await store.usage.record([message])
    await store.close()
    return admin


async def test_tenants_read_their_own_statements_and_operators_close_them(
    acme: ControlApi,
) -> None:
    get = pb.GetStatementRequest(name=NAME)
    found = await acme.statements.GetStatement(get)
    assert (found.open, found.currency, found.time_zone) == (True, "USD", "UTC")
    assert (found.total, found.exact_nanos) == ("0.02", 25_000_000)
    (line,) = found.lines
    assert (line.model, line.kind, line.requests) == ("valley", "completions", 1)
    assert (line.amount, line.input_nanos, line.output_tokens) == ("0.02", 25_000, 400)
    close = pb.CloseStatementRequest(name=NAME)
    assert isinstance(await refused(acme.statements.CloseStatement(close)), FailedPrecondition)
    correct = pb.CorrectStatementRequest(name=NAME, amount="-0.02", reason="an outage")
    await acme.statements.CorrectStatement(correct)
    for wrong, field in (
        ({"amount": "0.001"}, "amount"),
        ({"amount": "1,0"}, "amount"),
        ({"amount": "9999999999"}, "amount"),
        ({"reason": ""}, "reason"),
        ({"name": "tenants/acme/statements/2026-13"}, "name"),
    ):
        fields = {"name": NAME, "amount": "1", "reason": "x"} | wrong
        error = await refused(
            acme.statements.CorrectStatement(pb.CorrectStatementRequest(**fields))
        )
        assert (type(error), error.field) == (InvalidRequest, field)

    reader = await acme.create_key("acme", scopes=["usage:read"], models=["*"])
    async with ControlApi(acme.port, reader.secret) as own:
        corrected = await own.statements.GetStatement(get)
        assert (corrected.total, corrected.lines[1].reason) == ("0.00", "an outage")
        listed = await own.statements.ListStatements(
            pb.ListStatementsRequest(parent="tenants/acme")
        )
        assert not listed.statements
        for call in (
            own.statements.CloseStatement(close),
            own.statements.CorrectStatement(correct),
        ):
            assert isinstance(await refused(call), PermissionDenied)
        other = pb.GetStatementRequest(name=f"tenants/headrace/statements/{MONTH}")
        assert isinstance(await refused(own.statements.GetStatement(other)), ResourceNotFound)


async def test_a_deleted_tenants_statements_are_read_by_operators_alone(acme: ControlApi) -> None:
    get = pb.GetStatementRequest(name=NAME)
    before = await acme.statements.GetStatement(get)
    await acme.tenants.DeleteTenant(tenants_pb2.DeleteTenantRequest(name="tenants/acme"))
    after = await acme.statements.GetStatement(get)
    assert (after.total, after.account_id) == ("0.02", before.account_id)
    assert after.HasField("tenant_delete_time")
    reader = await acme.create_key("acme", scopes=["usage:read"], models=["*"])
    get.account_id = before.account_id
    assert (await acme.statements.GetStatement(get)).total == "0.02"
    async with ControlApi(acme.port, reader.secret) as own:
        assert isinstance(await refused(own.statements.GetStatement(get)), ResourceNotFound)
        get.account_id = ""
        assert (await own.statements.GetStatement(get)).total == "0.00"


@pytest.fixture
def shown(acme: ControlApi, tmp_path: Path) -> Shown:
    """Run a command as an operator does, and return what it prints."""
    key = (tmp_path / "admin.key").read_text().strip()
    to = ("--url", f"http://127.0.0.1:{acme.port}", "--api-key", key)

    async def run(*arguments: str, status: int = 0) -> str:
        ran = await headrace("usage", *arguments, *to, folder=tmp_path)
        assert ran.status == status, ran.err
        return ran.out or ran.err

    return run


async def test_statements_are_shown_as_text_json_and_csv(shown: Shown) -> None:
    of = ("--tenant", "acme", "--month", MONTH)
    await shown("correct", *of, "--amount", "5.10", "--reason", "a fee")
    text = await shown("statement", *of)
    assert text.startswith(f"acme {MONTH} (UTC): open, as of ")
    assert text.endswith("total: 5.12 USD\n")
    assert "25.00 25.00" in text  # prices of a million tokens
    found = json.loads(await shown("statement", *of, "--json"))
    sums = found["state"], found["total"], found["exact_amount"]
    assert sums == ("open", "5.12", "5.125000000")
    line = found["lines"][0]
    assert (line["requests"], line["input_tokens"], line["input_price"]) == (1, 600, "0.000025000")
    rows = list(csv.DictReader(io.StringIO(await shown("statement", *of, "--csv"))))
    assert [(row["model"], row["corrects_month"], row["amount"]) for row in rows] == [
        ("valley", "", "0.02"),
        ("", MONTH, "5.10"),
        ("total", "", "5.12"),
    ]


async def test_what_has_no_price_is_named(acme: ControlApi, tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path}/control.db")
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    await store.usage.record([usage_message(2, model="ridge", arrival_ms=now_ms, end_ms=now_ms)])
    await store.close()
    key = (tmp_path / "admin.key").read_text().strip()
    to = ("--url", f"http://127.0.0.1:{acme.port}", "--api-key", key, "--tenant", "acme")
    for command in ((), ("statement", "--month", MONTH)):
        ran = await headrace("usage", *command, *to, folder=tmp_path)
        assert ran.err.startswith("without a price, so that its use costs nothing: ridge (")
    assert "no price was set" in ran.out
    csv_ = await headrace("usage", *command, *to, "--csv", folder=tmp_path)
    rows = list(csv.DictReader(io.StringIO(csv_.out)))
    assert [row["unpriced"] for row in rows] == ["yes", "", ""]


async def test_a_month_that_goes_on_is_closed_early_alone(shown: Shown) -> None:
    of = ("--tenant", "acme", "--month", MONTH)
    assert "goes on in UTC" in await shown("close", *of, status=2)
    assert "closed, number 1" in await shown("close", *of, "--early")
    assert MONTH in await shown("statements", "--tenant", "acme")
