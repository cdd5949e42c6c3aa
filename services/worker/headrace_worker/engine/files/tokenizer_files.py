"""Tokenizers as `tokenizer.json`, from a folder, the Hugging Face hub or a GGUF file."""

from __future__ import annotations

import logging
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from headrace_worker.engine.base.loaded_model import ModelLoadFailed, TokenizerFiles

log = logging.getLogger(__name__)

UNREADABLE = (OSError, ValueError, KeyError, TypeError, ImportError, StrictDataclassError)
"""Errors that transformers raises for unreadable files."""

_VOCABULARIES = (
    *("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "spm.model", "merges.txt"),
)
"""Files that may hold a tokenizer."""
_PACKAGES = {"sentencepiece": ("sentencepiece", "google.protobuf"), "tiktoken": ("tiktoken",)}
_INSTALLED_AS = {"google.protobuf": "protobuf"}
_PROBES = ("The quick brown fox, 12345 times.", "naïve été 水 and  two spaces")


def first_line(error: BaseException) -> str:
    """Return the first line of an error; two lines if the first ends in a colon, as those of
    configurations do."""
    first, *more = f"{type(error).__name__}: {str(error).strip()}".splitlines()
    return f"{first} {more[0].strip()}" if more and first.endswith(":") else first


def tokenizer_files(
    source: str, folder: Path | str, eos_token_ids: tuple[int, ...] = (), **more: Any
) -> TokenizerFiles:
    """Convert a tokenizer of any format to `tokenizer.json`; run no code of the model's own.

    `folder` may be a hub id. `eos_token_ids` and the tokenizer's own end-of-sequence token end a
    turn, as in vLLM. `more` goes to `AutoTokenizer.from_pretrained`.

    Raises:
        ModelLoadFailed: for `source`, with the reason.
    """
    # Why here: it takes seconds to import, and what fails before it should fail at once.
    from transformers import AutoTokenizer

    local = Path(folder).expanduser()
    folder = local if local.is_dir() else folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **more)
    except Exception as error:  # a tokenizer's own code may raise anything
        raise ModelLoadFailed(source, _reason(local, error)) from error
    if len(tokenizer) == 0:
        # transformers makes an empty one where there are no files.
        raise ModelLoadFailed(source, _reason(local, None))
    with tempfile.TemporaryDirectory() as made:
        tokenizer.save_pretrained(made)
        saved = Path(made) / "tokenizer.json"
        if not saved.is_file():
            raise ModelLoadFailed(source, "its tokenizer has no tokenizer.json form")
        tokenizer_json = saved.read_bytes()
    if not (local / "tokenizer.json").is_file():
        _compare(tokenizer, local)
    own = tokenizer.eos_token_id
    templates = tokenizer.chat_template
    return TokenizerFiles(
        tokenizer_json,
        templates.get("default") if isinstance(templates, dict) else templates,
        {
            role: text
            for role, text in tokenizer.special_tokens_map.items()
            if isinstance(text, str)
        },
        tuple(dict.fromkeys((*eos_token_ids, *(() if own is None else (int(own),))))),
    )


def _reason(folder: Path, error: Exception | None) -> str:
    """Return why the folder gives no tokenizer; transformers' own message often misses it."""
    if folder.is_dir() and not any((folder / name).is_file() for name in _VOCABULARIES):
        return f"its folder has no tokenizer: none of {', '.join(_VOCABULARIES)} is there"
    fact = "it has no tokens" if error is None else first_line(error)
    model = _model_file(folder)
    if model is None:
        return f"its tokenizer: {fact}"
    kind = _kind(model)
    if kind is None:
        return f"its tokenizer: {model.name} is neither a sentencepiece nor a tiktoken file"
    absent = [name for name in _PACKAGES[kind] if not _is_installed(name)]
    if absent:
        names = " ".join(_INSTALLED_AS.get(name, name) for name in absent)
        why = f"{model.name} is a {kind} file, which takes a package that is not installed here"
        return f"its tokenizer: {why}: pip install {names}"
    return f"its tokenizer: {model.name}, a {kind} file, cannot be read: {fact}"


def _model_file(folder: Path) -> Path | None:
    """Return the file that a tokenizer is made from if there is no tokenizer.json."""
    if (folder / "tokenizer.json").is_file():
        return None
    names = (name for name in _VOCABULARIES if name.endswith(".model"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _kind(file: Path) -> str | None:
    """Return which of two formats with one name it is: tiktoken is lines of base64 and a number."""
    head = file.read_bytes()[:4096]
    fields = head.split(b"\n", 1)[0].split(b" ")
    if len(fields) == 2 and fields[1].strip().isdigit():
        return "tiktoken"
    # A list of pieces, as protobuf writes it: field 1, of some length.
    return "sentencepiece" if head[:1] == b"\n" else None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _compare(tokenizer: Any, folder: Path) -> None:
    """Log if a converted sentencepiece model splits text differently.

    Why it may: tokenizer_config.json names a class, and a class makes assumptions.
    """
    model = _model_file(folder)
    if model is None or _kind(model) != "sentencepiece" or not _is_installed("sentencepiece"):
        return
    from sentencepiece import SentencePieceProcessor

    original = SentencePieceProcessor(model_file=str(model))
    for probe in _PROBES:
        pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode(probe, add_special_tokens=False))
        if pieces != original.encode(probe, out_type=str):
            name = type(tokenizer).__name__
            why = f"as transformers' {name} it cuts text in other pieces than sentencepiece does"
            log.warning("tokenizer.differs", extra={"file": model.name, "why": why})
            return
