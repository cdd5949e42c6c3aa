"""A model's files: from a local folder or the Hugging Face hub."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

from headrace_worker.engine.base.loaded_model import (
    LoadStage,
    ModelLoadFailed,
    Progress,
    ignore_progress,
)
from headrace_worker.engine.files.hub import fetch_from_hub

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_WANTED = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
_WHOLE_BYTES = 4 << 30
_SAMPLE_BYTES = 1 << 20
_SAMPLES = 64


def model_folder(source: str, revision: str | None, progress: Progress = ignore_progress) -> Path:
    """Return the folder with the model's files, downloaded first if the source is a hub id.

    A hub id may end in a revision, as in org/name@v1; `revision` says the same.

    Raises:
        ModelLoadFailed: there is no such folder, the hub does not have it, or it is no
            transformers model with safetensors weights.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        name, _, tag = source.partition("@")
        if source.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
            raise ModelLoadFailed(
                source,
                f"there is no such folder: {folder.absolute()}; and it is no id of the Hugging Face"
                ' hub, which are as in org/name, nor "valley", the model that ships',
            )
        if tag and revision and tag != revision:
            fact = f"its id names the revision {tag}, and model_revision {revision}: unset one"
            raise ModelLoadFailed(source, fact)
        folder = fetch_from_hub(source, name, tag or revision, _WANTED, progress)
    if not (folder / "config.json").is_file():
        raise ModelLoadFailed(source, "its folder has no config.json")
    if not any(folder.glob("*.safetensors")):
        # Why not *.bin: those are pickles, and reading one runs the code in it.
        raise ModelLoadFailed(source, "its folder has no safetensors weights")
    return folder


def weights_digest(folder: Path, precision: str, progress: Progress = ignore_progress) -> str:
    """Return a digest, equal for equal weights, configuration and precision.

    Why the precision: a request resumes wherever the digest is equal, and the same weights give
    other tokens in another precision. Up to 4 GiB every byte is hashed; beyond, names, sizes and 64
    samples of 1 MiB of each file: that distinguishes models, but not a change of a few bytes.
    """
    files = sorted(folder.glob("*.safetensors"))
    sizes = [file.stat().st_size for file in files]
    total, done = sum(sizes), 0
    digest = sha256(_without_version((folder / "config.json").read_bytes()))
    digest.update(f"{precision}\n".encode())
    for file, size in zip(files, sizes, strict=True):
        digest.update(f"{file.name} {size}\n".encode())
        stride = _SAMPLE_BYTES if total <= _WHOLE_BYTES else max(_SAMPLE_BYTES, size // _SAMPLES)
        with file.open("rb") as stream:
            for at in range(0, size, stride):
                stream.seek(at)
                digest.update(stream.read(_SAMPLE_BYTES))
                progress(LoadStage.READING, done + min(at + stride, size), total)
        done += size
    kind = "sha256" if total <= _WHOLE_BYTES else "sampled-sha256"
    return f"{kind}:{digest.hexdigest()}"


def _without_version(config: bytes) -> bytes:
    """Return the configuration without the fields that only name the program that wrote it."""
    fields = json.loads(config)
    for name in ("transformers_version", "_name_or_path"):
        fields.pop(name, None)
    return json.dumps(fields, sort_keys=True).encode()
