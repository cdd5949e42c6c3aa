"""The files of the page."""

from __future__ import annotations

import gzip
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from headrace_web.http.assets import POLICY, Assets

SCRIPT = b"let x = 1;" * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "assets" / "index-abc.js").write_bytes(SCRIPT)
    (tmp_path.parent / "secret").write_text("x")
    return tmp_path


def client(folder: Path) -> httpx.AsyncClient:
    app = Starlette(routes=[Route("/ui/{path:path}", Assets(folder).serve)])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page")


async def test_the_page_is_asked_for_again_and_its_parts_are_kept(folder: Path) -> None:
    async with client(folder) as http:
        page = await http.get("/ui/")
        assert page.headers["cache-control"] == "no-cache"
        assert page.headers["content-security-policy"] == POLICY
        again = await http.get("/ui/", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        script = await http.get("/ui/assets/index-abc.js")
        assert "immutable" in script.headers["cache-control"]
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_files_are_packed_for_those_who_unpack(folder: Path) -> None:
    async with client(folder) as http:
        async with http.stream(
            "GET", "/ui/assets/index-abc.js", headers={"accept-encoding": "gzip"}
        ) as answer:
            raw = b"".join([piece async for piece in answer.aiter_raw()])
        assert gzip.decompress(raw) == SCRIPT
        plain = await http.get("/ui/assets/index-abc.js", headers={"accept-encoding": "identity"})
        assert plain.content == SCRIPT
        assert "content-encoding" not in plain.headers


@pytest.mark.parametrize("path", ["../secret", "%2e%2e/secret", "assets/none.js", "assets"])
async def test_nothing_else_is_served(folder: Path, path: str) -> None:
    async with client(folder) as http:
        assert (await http.get(f"/ui/{path}")).status_code == 404


async def test_a_page_that_is_not_built_says_how(tmp_path: Path) -> None:
    async with client(tmp_path / "none") as http:
        page = await http.get("/ui/")
        assert page.status_code == 200
        assert "make web" in page.text


def test_the_policy_allows_no_inline_script_and_no_other_origin() -> None:
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert "default-src 'none'" in POLICY
    assert "require-trusted-types-for 'script'" in POLICY
