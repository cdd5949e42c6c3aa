"""headrace file, as whoever uses models uses it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from helpers.command import Ran, headrace
from helpers.control_edge import control_edge


async def test_a_file_is_uploaded_listed_shown_downloaded_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with control_edge(tmp_path) as edge:

        async def run(*arguments: str) -> Ran:
            return await headrace("file", *arguments, "--url", edge.url, folder=tmp_path)

        async def done(*arguments: str) -> str:
            ran = await run(*arguments)
            assert (ran.status, ran.err) == (0, ""), ran
            return ran.out.strip()

        cli_key = (tmp_path / "state" / "cli.key").read_text().strip()
        monkeypatch.setenv("HEADRACE_API_KEY", cli_key)
        assert await done("list") == "no files"
        rows = tmp_path / "rows [1].jsonl"
        rows.write_bytes(os.urandom(1 << 20))
        file_id = await done("upload", str(rows), "--expires-after", "12h")
        shown = json.loads(await done("show", file_id, "--json"))
        assert (shown["filename"], shown["purpose"]) == (rows.name, "batch")
        assert (shown["bytes"], shown["expires_at"] - shown["created_at"]) == (1 << 20, 12 * 3600)
        assert rows.name in await done("list")
        assert rows.name in await done("show", file_id)
        assert json.loads(await done("list", "--purpose", "vision", "--json")) == []

        copy = tmp_path / "copy"
        await done("download", file_id, str(copy))
        assert copy.read_bytes() == rows.read_bytes()
        again = await run("download", file_id, str(copy))
        assert (again.status, "copy exists: give another PATH" in again.err) == (1, True)

        assert await done("delete", file_id) == f"{file_id} is deleted"
        for arguments in (("show", file_id), ("download", file_id, "none"), ("delete", file_id)):
            gone = await run(*arguments)
            assert (gone.status, gone.err) == (2, f"headrace: file '{file_id}' not found\n")
        assert not (tmp_path / "none").exists()

        text = tmp_path / "text"
        text.write_text("Hello\n")
        made = json.loads(await done("upload", str(text), "--purpose", "user_data", "--json"))
        assert made["expires_at"] is None
        assert await done("download", made["id"]) == "Hello"
        wrong = await run("upload", str(text), "--expires-after", "5s")
        assert (wrong.status, "must be 3600 to 2592000" in wrong.err) == (2, True)
        odd = await run("show", "../keys")
        assert (odd.status, "is no id of a file" in odd.err) == (2, True)
        monkeypatch.setenv("HEADRACE_API_KEY", "hr_wrong")
        refused = await run("list")
        assert (refused.status, "Incorrect API key" in refused.err) == (2, True)


async def test_where_nothing_answers_it_says_so(tmp_path: Path) -> None:
    ran = await headrace("file", "list", "--url", "http://127.0.0.1:9", folder=tmp_path)
    assert (ran.status, "nothing answers at http://127.0.0.1:9" in ran.err) == (1, True)
