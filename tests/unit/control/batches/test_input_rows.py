"""What a line of an input file must be, and what is said of one that is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace_control.base.batches import BatchError
from headrace_control.batches.input_rows import InputCheck, InvalidRow, parse_row

CHAT = "/v1/chat/completions"


def row(custom_id: Any = "a", **changes: Any) -> bytes:
    whole = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "m"}}
    return json.dumps({k: v for k, v in (whole | changes).items() if v is not None}).encode()


def test_a_row_is_parsed_with_its_model_and_body() -> None:
    parsed = parse_row(3, row("a", body={"model": "m", "seed": 1}), CHAT)
    assert (parsed.line, parsed.custom_id, parsed.model) == (3, "a", "m")
    assert json.loads(parsed.body) == {"model": "m", "seed": 1}


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        (b"{", "invalid_json_line", ""),
        (b"[]", "invalid_json_line", ""),
        (b'{"a": NaN}', "invalid_json_line", ""),
        (b"[" * 100_000, "invalid_json_line", ""),
        (row(body={"model": "m", "x": 1}).replace(b"1}", b"1e999}"), "invalid_body", "body"),
        (row(body={"model": "m" * 257}), "model_not_found", "body.model"),
        (row("\ud800"), "invalid_json_line", ""),
        (None, "line_too_long", ""),
        (row(None), "missing_required_parameter", "custom_id"),
        (row(7), "invalid_type", "custom_id"),
        (row(""), "invalid_custom_id", "custom_id"),
        (row("x" * 513), "invalid_custom_id", "custom_id"),
        (row(method="GET"), "invalid_method", "method"),
        (row(url="/v1/embeddings"), "mismatched_endpoint", "url"),
        (row(body=None), "missing_required_parameter", "body"),
        (row(body=[]), "invalid_body", "body"),
        (row(body={}), "missing_required_parameter", "body.model"),
        (row(body={"model": "m", "stream": True}), "unsupported_parameter", "body.stream"),
        (row(body={"model": "m", "background": 1}), "unsupported_parameter", "body.background"),
    ],
)
def test_what_is_no_row_is_refused(content: bytes | None, code: str, param: str) -> None:
    with pytest.raises(InvalidRow) as invalid:
        parse_row(1, content, CHAT)
    assert (invalid.value.code, invalid.value.param) == (code, param)


def test_a_row_of_responses_is_in_no_conversation_and_may_say_that_it_is_stored() -> None:
    url = "/v1/responses"
    for conversation in ("conv_1", {"id": "conv_1"}):
        line = row(url=url, body={"model": "m", "conversation": conversation})
        with pytest.raises(InvalidRow) as invalid:
            parse_row(1, line, url)
        assert invalid.value.code == "unsupported_parameter"
        assert invalid.value.param == "body.conversation"
    body: dict[str, Any] = {"model": "m", "store": True, "conversation": None}
    assert json.loads(parse_row(1, row(url=url, body=body), url).body) == body


def check(*contents: bytes, max_rows: int = 10, **refusals: str) -> list[tuple[str, int]]:
    checked = InputCheck(CHAT, max_rows=max_rows)
    for line, content in enumerate(contents, 1):
        if not checked.is_over:
            checked.add(line, content)
    return [(error.code, error.line) for error in checked.errors(refusals)]


def test_a_valid_file_has_no_errors() -> None:
    assert check(row("a"), row("b", body={"model": "other"})) == []


def test_a_custom_id_names_one_row() -> None:
    assert check(row("a"), row("b"), row("a")) == [("duplicate_custom_id", 3)]


def test_an_empty_file_is_refused() -> None:
    assert InputCheck(CHAT).errors({}) == (BatchError("empty_file", "The input file has no rows."),)


def test_rows_beyond_the_bound_end_the_check() -> None:
    assert check(row("a"), row("b"), row("c"), b"{", max_rows=2) == [("too_many_rows", 3)]


def test_errors_come_in_the_order_of_lines_those_of_models_among_them() -> None:
    lines = [row("a", body={"model": "no"}), b"{", row("b"), row("c", body={"model": "no"})]
    found = check(*lines, no="The model `no` does not exist")
    assert found == [("model_not_found", 1), ("invalid_json_line", 2), ("model_not_found", 4)]


def test_at_most_a_hundred_errors_are_reported() -> None:
    assert len(check(*[b"{"] * 150, max_rows=1000)) == 100
    many = [row(str(i), body={"model": "no"}) for i in range(150)]
    assert len(check(*many, max_rows=1000, no="no")) == 100


@pytest.mark.parametrize("depth", [*range(180, 210, 5), *range(900, 1000, 5)])
def test_how_deep_a_row_may_be_does_not_depend_on_who_reads_it(depth: int) -> None:
    line = row(body={"model": "m", "x": 1}).replace(b"1}", b"[" * depth + b"]" * depth + b"}")

    def is_row(calls: int) -> bool:
        if calls:
            return is_row(calls - 1)
        try:
            return bool(parse_row(1, line, CHAT))
        except InvalidRow:
            return False

    assert len({is_row(calls) for calls in (0, 40)}) == 1


def test_a_row_is_no_longer_for_a_gateway_than_its_line_may_be() -> None:
    accents = row(body={"model": "m", "x": "X"}).replace(b"X", "é".encode() * 4_000_000)
    assert len(parse_row(1, accents, CHAT).body) < len(accents)
    powers = row(body={"model": "m", "x": []}).replace(b"[]", b"[1%s]" % (b"e15,1" * 1_000_000))
    with pytest.raises(InvalidRow) as invalid:
        parse_row(1, powers, CHAT)
    assert invalid.value.code == "line_too_long"


def test_a_batch_names_so_many_models_and_no_more() -> None:
    lines = [row(str(i), body={"model": f"m{i}"}) for i in range(102)]
    found = check(*lines, row("last", body={"model": "m0"}), max_rows=200)
    assert found == [("too_many_models", 101), ("too_many_models", 102)]
