"""A client's key is read with care, and no error has its text."""

from __future__ import annotations

import httpx
import pytest

from headrace.client import Client
from headrace.client.calls.endpoint import Endpoint
from headrace.errors import HeadraceError, InvalidApiKey

URL = "http://127.0.0.1:1"


def test_white_space_around_a_key_is_left_out() -> None:
    with Client(URL, api_key=" hr_secret\n") as client:
        assert client._link.endpoint.api_key == "hr_secret"


@pytest.mark.parametrize("key", ["hr_se\ncret", "hr_se cret", "hr_s\u00e9cret"])
def test_a_key_that_cannot_be_one_is_refused_without_its_text(key: str) -> None:
    with pytest.raises(InvalidApiKey) as refused:
        Client(URL, api_key=key)
    assert "hr_" not in refused.value.message


def test_no_error_has_the_text_of_a_header() -> None:
    with pytest.raises(HeadraceError) as raised, Endpoint(URL).http_errors():
        raise httpx.LocalProtocolError("Illegal header value b'Bearer hr_secret\\n'")
    assert "hr_" not in raised.value.message
    assert raised.value.__suppress_context__
