"""A folder with a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from headrace_worker.engine.base.loaded_model import TokenizerFiles


def write_tokenizer(files: TokenizerFiles, folder: Path) -> None:
    """Write the files as transformers' `AutoTokenizer` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(files.tokenizer_json)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **files.special_tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), "utf-8")
    if files.chat_template is not None:
        (folder / "chat_template.jinja").write_text(files.chat_template, "utf-8")
