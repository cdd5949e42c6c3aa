"""A model's defaults for generation: which tokens end a turn, and sampling parameters."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from headrace.sampling import PARAMETERS
from headrace_worker.engine.base.loaded_model import TokenizerFiles
from headrace_worker.engine.files.tokenizer_files import UNREADABLE

log = logging.getLogger(__name__)

_DEFAULTS = [each for each in PARAMETERS.values() if each.model_default]
_NOT_SERVED = (
    *("top_h", "epsilon_cutoff", "eta_cutoff", "penalty_alpha", "guidance_scale"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty"),
    *("bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens"),
    *("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty"),
    *("num_beams", "diversity_penalty", "min_length", "min_new_tokens", "max_new_tokens"),
    *("stop_strings", "watermarking_config", "max_time", "dola_layers"),
)
"""Other settings that would change an answer of transformers' `generate`."""
_NEUTRAL: tuple[Any, ...] = (None, False, 0, 0.0, 1, 1.0, [], {})
_TURN_ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|eot|>", "<|end|>", "<|end_of_turn|>"),
    *("<end_of_turn>", "<turn|>", "[|endofturn|]"),
)
"""Special tokens with which chat templates end a turn, as llama.cpp knows them."""


def read_generation_config(folder: Path) -> GenerationConfig:
    """Return the folder's configuration; an empty one if it is absent or unreadable."""
    try:
        config: GenerationConfig = GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError):
        return GenerationConfig()  # type: ignore[no-untyped-call]  # theirs
    return config


def configured_end_tokens(config: GenerationConfig, model: PreTrainedConfig) -> tuple[int, ...]:
    """Return the tokens that end a turn by the generation configuration, else by the model's.

    The tokenizer's end-of-sequence token is added by `tokenizer_files`, as in vLLM.
    """
    text = model.get_text_config()
    for each in (config, model, text):
        eos = getattr(each, "eos_token_id", None)
        if eos is not None:
            ids = eos if isinstance(eos, list | tuple) else [eos]
            end = getattr(text, "vocab_size", None) or 2**31
            # Why not refused: transformers and vLLM do not check, and such an id ends nothing.
            return tuple(one for one in ids if type(one) is int and 0 <= one < end)
    return ()


def configured_end_tokens_in(folder: Path) -> tuple[int, ...]:
    """Return the same for a folder whose model another engine loads."""
    try:
        model = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except UNREADABLE:
        # Of an architecture that transformers does not know.
        model = PreTrainedConfig()
    return configured_end_tokens(read_generation_config(folder), model)


def generation_defaults(config: GenerationConfig) -> dict[str, Any]:
    """Return the defaults for requests that set none; log what is out of range or not applied."""
    found: dict[str, Any] = {}
    for each in _DEFAULTS:
        value = getattr(config, each.name, None)
        if each.whole and value == -1:
            value = 0  # as others write "all"
        if value is None:
            continue
        if type(value) in (int, float) and each.allows(value):
            found[each.name] = int(value) if each.whole else value
        else:
            why = f"it is {value!r}, and a request may have {each.range}"
            log.warning("model.default_ignored", extra={"field": each.name, "why": why})
    if config.do_sample is False:
        # If it is explicit, transformers is greedy whatever the temperature, too.
        found["temperature"] = 0.0
    for name in _NOT_SERVED:
        if (value := getattr(config, name, None)) not in _NEUTRAL:
            why = "generation_config.json has it, and it is not applied here"
            log.warning("model.default_ignored", extra={"field": name, "why": why})
    return found


def warn_of_unknown_turn_ends(files: TokenizerFiles) -> None:
    """Log a turn-ending token of the chat template that does not end an answer.

    Why no more than that: vLLM and transformers do not end a turn by such a token either.
    """
    added = json.loads(files.tokenizer_json).get("added_tokens", ())
    for token in added:
        text, token_id = token["content"], token["id"]
        if text not in _TURN_ENDS or text not in (files.chat_template or ""):
            continue
        if token_id not in files.eos_token_ids:
            why = "the chat template writes it, and it ends no answer; if answers do not end, add"
            why = f"{why} its id to eos_token_id in generation_config.json"
            extra = {"token": text, "token_id": token_id, "why": why}
            log.warning("model.turn_end_unknown", extra=extra)
