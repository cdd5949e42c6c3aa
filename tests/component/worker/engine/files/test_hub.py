"""Models from the Hugging Face hub; each start is a process of its own, as the hub's library reads
its environment once."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.eventually import eventually
from helpers.loopback_hub import COMMIT, PIECE_BYTES, LoopbackHub, loopback_hub

REPOSITORY, TOKEN = "acme/tiny", "hf_only-for-the-hub"
WEIGHTS_BYTES = 24 << 20
CHUNK_BYTES = 10_000_000
"""What the hub's library writes at once."""
_START = """
import json, logging, sys
logging.basicConfig(level=logging.DEBUG)
from headrace_worker.engine.base.loaded_model import ModelLoadFailed
from headrace_worker.engine.files.sources import model_folder
source, revision = sys.argv[1], sys.argv[2] or None
seen = []
try:
    folder = str(model_folder(source, revision, lambda stage, *counts: seen.append(counts)))
except ModelLoadFailed as error:
    print(json.dumps({"kind": type(error).__name__, "error": str(error), "progress": seen}))
else:
    print(json.dumps({"folder": folder, "progress": seen}))
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pickled.bin").write_bytes(b"not fetched")
    (folder / "model.safetensors").write_bytes(random.Random(7).randbytes(WEIGHTS_BYTES))
    return folder


@pytest.fixture
def hub(files: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(REPOSITORY, files) as hub:
        hub.may_go_on.set()
        yield hub


def _process(
    url: str, tmp_path: Path, source: str = REPOSITORY, revision: str = "", **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _START, source, revision],
        env={"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "cache"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _start(url: str, tmp_path: Path, source: str = REPOSITORY, **more: str) -> dict[str, object]:
    """Return what became of a start: `folder` or `error`, and the progress."""
    output, log = _process(url, tmp_path, source, **more).communicate(timeout=50)
    assert TOKEN not in output + log
    result: dict[str, object] = json.loads(output)
    return result


def _assert_same_files(result: dict[str, object], files: Path) -> None:
    folder = Path(str(result.get("folder", result)))
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    for file in folder.iterdir():
        assert file.read_bytes() == (files / file.name).read_bytes()


@pytest.mark.parametrize("token", ["environment", "file"])
def test_a_token_opens_a_private_model_and_does_not_leave_the_hub(
    hub: LoopbackHub, files: Path, tmp_path: Path, token: str
) -> None:
    hub.token = TOKEN
    if token == "file":
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        given = {"HF_TOKEN_PATH": str(tmp_path / "token")}
    else:
        given = {"HF_TOKEN": TOKEN}
    result = _start(hub.url, tmp_path, **given)
    _assert_same_files(result, files)
    assert hub.storage_headers
    assert not [seen for seen in hub.storage_headers if "authorization" in str(seen).lower()]
    progress = result["progress"]
    assert isinstance(progress, list)
    assert progress == sorted(progress), "it goes back"
    size = WEIGHTS_BYTES + 2
    assert progress[-1] == [size, size]


def test_a_revision_is_a_branch_a_tag_or_a_commit_in_the_setting_or_behind_the_id(
    hub: LoopbackHub, files: Path, tmp_path: Path
) -> None:
    for revision in ("main", "v1", COMMIT):
        _assert_same_files(_start(hub.url, tmp_path, revision=revision), files)
    _assert_same_files(_start(hub.url, tmp_path, f"{REPOSITORY}@v1"), files)
    assert hub.asked[-1] == "v1"
    assert hub.sent["model.safetensors"] == WEIGHTS_BYTES, "once for all"
    two = _start(hub.url, tmp_path, f"{REPOSITORY}@v1", revision="main")
    assert "its id names the revision v1, and model_revision main" in str(two["error"])


async def test_a_start_goes_on_where_a_killed_one_came_to(
    hub: LoopbackHub, files: Path, tmp_path: Path
) -> None:
    hub.may_go_on.clear()
    process = _process(hub.url, tmp_path)

    def written() -> int:
        return max((part.stat().st_size for part in tmp_path.rglob("*.incomplete")), default=0)

    await eventually(lambda: written() >= CHUNK_BYTES, within_s=30)
    process.kill()
    process.communicate()
    kept = written()
    hub.may_go_on.set()
    hub.sent.clear()
    _assert_same_files(_start(hub.url, tmp_path), files)
    assert hub.ranges[-1] == f"bytes={kept}-"
    # Why: the hub still writes a piece or two to the connection of the killed one.
    assert 0 <= hub.sent["model.safetensors"] - (WEIGHTS_BYTES - kept) <= 2 * PIECE_BYTES
    assert written() == 0, "something is left over"


def test_a_broken_connection_goes_on_and_a_damaged_file_is_not_kept(
    hub: LoopbackHub, files: Path, tmp_path: Path
) -> None:
    hub.damaged = True
    error = str(_start(hub.url, tmp_path)["error"])
    assert "arrived damaged" in error
    assert not list(tmp_path.rglob("*.headrace.incomplete"))
    hub.damaged = False
    hub.sent.clear()
    hub.cut_after = WEIGHTS_BYTES // 2
    _assert_same_files(_start(hub.url, tmp_path), files)
    assert hub.ranges


@pytest.mark.parametrize("offline", [False, True], ids=["the hub is down", "HF_HUB_OFFLINE"])
def test_a_complete_cache_is_enough(
    hub: LoopbackHub, files: Path, tmp_path: Path, offline: bool
) -> None:
    url = "http://127.0.0.1:9" if not offline else hub.url
    environment = {"HF_HUB_OFFLINE": "1"} if offline else {}
    empty = _start(url, tmp_path, **environment)
    if offline:
        assert empty["kind"] == "ModelLoadFailed"
        assert "HF_HUB_OFFLINE is set, and the cache" in str(empty["error"])
        assert not hub.asked
    else:
        assert empty["kind"] == "ModelUnreachable"
        assert f"{url} cannot be reached" in str(empty["error"])
        assert "HF_ENDPOINT" in str(empty["error"])
    _assert_same_files(_start(hub.url, tmp_path), files)
    _assert_same_files(_start(url, tmp_path, **environment), files)


def test_refusals_name_the_fact_and_what_to_do(hub: LoopbackHub, tmp_path: Path) -> None:
    absent = str(_start(hub.url, tmp_path, "acme/absent")["error"])
    assert f"{hub.url} has no model acme/absent" in absent
    assert "HF_TOKEN must be of an account that may read it" in absent

    revision = str(_start(hub.url, tmp_path, revision="v9")["error"])
    assert "has no revision v9 of it: set model_revision" in revision

    hub.gated = True
    gated = str(_start(hub.url, tmp_path, HF_TOKEN=TOKEN)["error"])
    assert f"accept its terms at {hub.url}/{REPOSITORY}; HF_TOKEN must be" in gated
    hub.gated = False

    hub.token = "another"
    wrong = str(_start(hub.url, tmp_path, HF_TOKEN=TOKEN)["error"])
    assert "refused it with 401: HF_TOKEN must be of an account" in wrong
