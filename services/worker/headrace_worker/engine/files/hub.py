"""A model's files from the Hugging Face hub, into the cache of the hub's own library."""

from __future__ import annotations

import errno
import fnmatch
from collections.abc import Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub as library
from huggingface_hub import constants, errors
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]
from huggingface_hub.utils._runtime import is_xet_available
from tqdm import tqdm

from headrace_worker.engine.base.loaded_model import (
    LoadStage,
    ModelLoadFailed,
    ModelUnreachable,
    Progress,
)

_HTTPError: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # of their library


def fetch_from_hub(
    source: str, name: str, revision: str | None, patterns: Sequence[str], progress: Progress
) -> Path:
    """Return the folder of the cache that has the model `name`, downloaded as far as it is missing.

    The endpoint, the token and the cache are the library's own: HF_ENDPOINT, HF_TOKEN or the file
    of `hf auth login`, HF_HOME. Where the hub is out of reach a complete cache is enough.

    Raises:
        ModelUnreachable: the hub does not answer; a later start may succeed.
        ModelLoadFailed: for `source`, with the fact and what to do.
    """
    try:
        bars = _fetch_large_files(name, revision, patterns, progress)
        return Path(
            library.snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), tqdm_class=bars
            )
        )
    except (_HTTPError, errors.HFValidationError, OSError) as error:
        kind = ModelUnreachable if _is_unreachable(error) else ModelLoadFailed
        raise kind(source, _reason(name, revision, error)) from error


def _fetch_large_files(
    name: str, revision: str | None, patterns: Sequence[str], progress: Progress
) -> type[tqdm]:
    """Download large files that are missing, from where an earlier process came to.

    Why not the library: what it has of a file goes with the process, gigabytes if that is killed.
    Files in the hub's Xet storage are left to it, as it fetches those faster. Returns bars for
    the rest.
    """
    try:
        commit = library.model_info(name, revision=revision).sha
        tree = list(library.list_repo_tree(name, revision=commit, recursive=True))
    except (_HTTPError, errors.HFValidationError, OSError):
        # Why: the library asks the same, and knows whether the cache does without an answer.
        return _reporting_bars(progress)
    missing = [
        file
        for file in tree
        if isinstance(file, library.hf_api.RepoFile)
        and any(fnmatch.fnmatch(file.path, pattern) for pattern in patterns)
        and not isinstance(library.try_to_load_from_cache(name, file.path, revision=commit), str)
    ]
    blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "blobs")
    done, expected = 0, sum(file.size for file in missing)
    for file in missing:
        if file.lfs is not None and not (file.xet_hash and is_xet_available()):
            url = library.hf_hub_url(name, file.path, revision=commit)
            bars = _reporting_bars(progress, before=done, expected=expected)
            progress(LoadStage.FETCHING, done, expected)
            _fetch_blob(url, blobs / file.lfs.sha256, file.size, bars)
            done += file.size
    return _reporting_bars(progress, before=done, expected=expected)


def _fetch_blob(url: str, blob: Path, size: int, bars: type[tqdm]) -> None:
    """Download a file of the hub, whose name in the cache is its SHA-256."""
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(f"{blob.name}.headrace.incomplete")
    with WeakFileLock(blob.with_suffix(".headrace.lock")):
        if blob.exists():
            return
        location = library.get_hf_file_metadata(url).location
        # Why: the token is for the hub, not for the storage that it redirects to.
        is_same = urlsplit(location)[:2] == urlsplit(url)[:2]
        headers = build_hf_headers(token=None if is_same else False)
        more: dict[str, Any] = {"headers": headers, "expected_size": size, "tqdm_class": bars}
        with part.open("ab") as stream:
            if stream.tell() > size:
                stream.truncate(0)
            http_get(location, stream, resume_size=stream.tell(), **more)
        with part.open("rb") as written:
            is_sound = file_digest(written, "sha256").hexdigest() == blob.name
        if not is_sound:
            part.unlink()
            raise OSError(f"{url} arrived damaged: its SHA-256 is not the hub's; start again")
        part.replace(blob)


def _reporting_bars(progress: Progress, *, before: int = 0, expected: int = 0) -> type[tqdm]:
    """Return progress bars that draw nothing and report bytes, beyond those received `before`.

    The hub's library has two such bars, for bytes received and bytes written, and the latter
    includes what was cached: the larger is reported.
    """
    ahead = 0.0

    class Bar(tqdm):  # type: ignore[misc]  # it has no types
        def __init__(self, *arguments: Any, **named: Any) -> None:
            self._counts_bytes = named.get("unit") == "B"
            super().__init__(*arguments, **{**named, "disable": True})
            self.done = named.get("initial") or 0

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal ahead
            self.done += n or 0
            if self._counts_bytes and self.done >= ahead:
                ahead = self.done
                total = max(before + int(self.total or 0), expected)
                progress(LoadStage.FETCHING, before + int(self.done), total)
            return None

    return Bar


def _is_unreachable(error: BaseException | None) -> bool:
    """Return whether a later try may succeed without a change of settings."""
    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    if isinstance(error, errors.LocalEntryNotFoundError):
        return _is_unreachable(error.__cause__)
    return isinstance(error, _HTTPError)


def _reason(name: str, revision: str | None, error: Exception) -> str:
    """Return the fact and what to do; never with the token."""
    hub, cache, token = constants.ENDPOINT, constants.HF_HUB_CACHE, library.get_token()
    cause: BaseException = error
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        cause = error.__cause__
    fact = (str(error).strip() or type(error).__name__).splitlines()[0]
    fact = fact.replace(token, "(the token)") if token else fact
    account = "HF_TOKEN must be of an account that may read it"
    match cause:
        case errors.GatedRepoError():
            return f"it is gated: accept its terms at {hub}/{name}; {account}"
        case errors.RepositoryNotFoundError():
            here = f"there is no folder {Path(name).absolute()}, and {hub} has no model {name}"
            return f"{here}: check the id and HF_ENDPOINT; if it is private, {account}"
        case errors.RevisionNotFoundError():
            revisions = "set model_revision to one of its branches, tags or commits"
            return f"{hub} has no revision {revision or 'main'} of it: {revisions}"
        case errors.HfHubHTTPError() if cause.response.status_code in (401, 403):
            return f"{hub} refused it with {cause.response.status_code}: {account}"
        case errors.OfflineModeIsEnabled():
            fact = f"HF_HUB_OFFLINE is set, and the cache {cache} does not have all of its files"
            return f"{fact}: unset it for a start, or set HF_HOME to a cache that has them"
        case OSError() if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk of the cache {cache} is full: make room, or set HF_HOME to another"
    if _is_unreachable(error):
        lacks = f"and the cache {cache} does not have all of its files ({fact})"
        return f"{hub} cannot be reached, {lacks}: check the network and HF_ENDPOINT"
    return f"it was requested from the Hugging Face hub {hub}, which answered: {fact}"
