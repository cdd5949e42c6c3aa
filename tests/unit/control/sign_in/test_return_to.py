"""Where a browser goes after sign-in."""

from __future__ import annotations

import pytest

from headrace.errors import InvalidRequest
from headrace_control.sign_in.return_to import checked_return_to


@pytest.mark.parametrize("path", ["/", "/ui/", "/ui/chat?model=a//b#part", "/a%2Fb%5C", "/ui/@x:y"])
def test_a_path_of_this_mesh_is_kept(path: str) -> None:
    assert checked_return_to(path) == path


def test_no_path_is_the_page() -> None:
    assert checked_return_to("") == "/ui/"


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "https:evil.example",
        "javascript:alert(1)",
        "ui/",
        "?x",
        " //evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/ui\r\nset-cookie: headrace_session=x",
        "/ui\x00",
        "/ui//evil.example",
        "/./\\evil.example",
        "/ü",
        "/" + "a" * 1024,
    ],
)
def test_what_may_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match=r"return_to is .* must be a path of this mesh"):
        checked_return_to(path)
