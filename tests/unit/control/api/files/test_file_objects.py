"""Files as OpenAI's API shows them, read by OpenAI's own types."""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import FileDeleted, FileObject

from headrace.errors import InvalidRequest
from headrace.v1.files_pb2 import ListFilesRequest
from headrace_control.api.files.file_objects import (
    content_disposition,
    deleted_object,
    file_list,
    file_object,
    file_query,
)
from headrace_control.base.files import File, FileQuery, safe_filename

CREATED = datetime(2026, 11, 30, tzinfo=UTC)
FILE = File("file-1", "acme", "batch", "rows.jsonl", 7, "ab", "processed", CREATED)


def test_a_file_is_openais_and_says_nothing_of_its_tenant() -> None:
    shown = file_object(FILE)
    assert FileObject.model_validate(shown, strict=True).model_dump() == shown
    assert shown["created_at"] == int(CREATED.timestamp())
    assert "acme" not in str(shown)
    deleted = deleted_object("file-1")
    assert FileDeleted.model_validate(deleted, strict=True).model_dump() == deleted


def test_a_list_says_where_the_next_page_begins() -> None:
    page = file_list([FILE], has_more=True)
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("file-1", "file-1", True)
    assert file_list([], has_more=False)["last_id"] is None


def test_a_query_without_fields_lists_all_newest_first() -> None:
    assert file_query(ListFilesRequest()) == FileQuery(limit=10_000)
    chosen = ListFilesRequest(after="file-1", limit=1, order="asc", purpose="batch")
    assert file_query(chosen) == FileQuery("batch", "file-1", 1, oldest_first=True)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ListFilesRequest(limit=0), "limit"),
        (ListFilesRequest(limit=10_001), "limit"),
        (ListFilesRequest(limit=-1), "limit"),
        (ListFilesRequest(order="up"), "order"),
        (ListFilesRequest(purpose="cooking"), "purpose"),
    ],
)
def test_a_query_out_of_range_is_refused(request_: ListFilesRequest, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        file_query(request_)
    assert refused.value.field == field


@given(st.text().map(safe_filename))
def test_a_name_is_a_header_from_which_clients_read_it_back(name: str) -> None:
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    message = Message()
    message["content-disposition"] = header.partition(";")[0] + ";" + header.rpartition(";")[2]
    assert message.get_filename() == name
