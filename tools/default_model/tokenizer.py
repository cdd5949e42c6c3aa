"""The tokenizer of the default model, and the text form of a conversation.

    python tools/default_model/tokenizer.py --out DIR

Keep the tokenizer when the corpus changes: other merges number the tokens anew, and weights
trained with the old numbers are then worth nothing.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from corpus import conversations, plain_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from talk import Conversation

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ("system", "user", "assistant", "tool")
SPECIAL = (PAD, BEGIN, END, *(f"<|{role}|>" for role in ROLES))
# Why not special: a caller must see where a tool call starts, also in text decoded without
# special tokens.
VISIBLE = ("<tool_call>", "</tool_call>")
VOCABULARY = 2048
CONTEXT = 2048

# Tools stand in the system message, one line each; a full schema would cost the small context
# a hundred tokens per tool.
TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{- content -}}
{%- elif content is not none -%}
{%- for part in content -%}
{%- if part is string -%}{{- part -}}
{%- elif part.type == 'text' -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro tool_lines() -%}
{%- for tool in tools -%}
{%- set function = tool.function if tool.function is defined else tool -%}
{{- '\\n' ~ function.name ~ '(' -}}
{%- if function.parameters is defined and function.parameters
    and function.parameters.properties is defined -%}
{{- function.parameters.properties.keys() | join(', ') -}}
{%- endif -%}
{{- ')' -}}
{%- if function.description is defined and function.description -%}
{{- ': ' ~ function.description -}}
{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
{{- bos_token -}}
{%- set first = messages[0] if messages else none -%}
{%- set opened = first is not none and first.role in ['system', 'developer'] -%}
{%- if opened or tools -%}
{{- '<|system|>' -}}
{%- if opened -%}{{- text(first.content) -}}{%- endif -%}
{%- if tools -%}{{- '\\nTools:' ~ tool_lines() -}}{%- endif -%}
{{- eos_token -}}
{%- endif -%}
{%- for message in messages -%}
{%- if not (loop.first and opened) -%}
{%- set role = {'developer': 'system', 'function': 'tool'}.get(message.role, message.role) -%}
{%- if role not in ['system', 'user', 'assistant', 'tool'] -%}
{{- raise_exception('unknown role ' ~ message.role) -}}
{%- endif -%}
{{- '<|' ~ role ~ '|>' -}}
{%- if message.content is defined -%}{{- text(message.content) -}}{%- endif -%}
{%- if message.tool_calls is defined and message.tool_calls -%}
{%- for call in message.tool_calls -%}
{%- set function = call.function if call.function is defined else call -%}
{{- '<tool_call>{"name": "' ~ function.name ~ '", "arguments": ' -}}
{%- if function.arguments is string -%}{{- function.arguments -}}
{%- else -%}{{- function.arguments | tojson -}}{%- endif -%}
{{- '}</tool_call>' -}}
{%- endfor -%}
{%- endif -%}
{{- eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def segments(talk: Conversation) -> Iterator[tuple[str, bool]]:
    """The text of the chat template in pieces, and whether the model is to learn to write each.

    Special tokens stand only at the edges of pieces, so the pieces may be encoded one by one.
    """
    messages = list(talk.messages)
    yield BEGIN, False
    if talk.tools or messages[0]["role"] == "system":
        opening = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
        yield f"<|system|>{opening}{_tool_lines(talk.tools)}{END}", False
    for message in messages:
        yield f"<|{message['role']}|>", False
        learned = message["role"] == "assistant"
        yield f"{message['content']}{END}", learned


def _tool_lines(tools: list[dict[str, Any]]) -> str:
    if not tools:
        return ""
    lines = ["\nTools:"]
    for function in (tool["function"] for tool in tools):
        names = ", ".join(function["parameters"]["properties"])
        text = function["description"]
        lines.append(f"{function['name']}({names}){': ' if text else ''}{text}")
    return "\n".join(lines)


def samples(count: int) -> Iterator[str]:
    rng = Random(1)
    for talk in islice(conversations(seed=1), count):
        yield from (message["content"] for message in talk.messages)
        yield plain_text(rng)


def train_tokenizer() -> Any:
    """Byte-level, so any text comes back unchanged. Digits stand alone: 10 and 100 share them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(VISIBLE),
        min_frequency=4,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(samples(30_000), trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in VISIBLE])
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE,
    )


def check_tokenizer(tokenizer: Any) -> None:
    """Raises where text is lost or where `segments` and the chat template disagree."""
    texts = ["Ada's café\n\t 1234567890 , .  ?", "👩‍👩‍👧‍👦🏽 你好 \u202e\x00\x7f"]
    texts += ["".join(map(chr, range(at, at + 256))) for at in range(0, 0xD800, 256)]
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        if tokenizer.decode(ids) != text:
            raise ValueError(f"text is lost: {text[:40]!r}")
    for talk in islice(conversations(seed=2), 300):
        ours = "".join(text for text, _ in segments(talk))
        theirs = tokenizer.apply_chat_template(
            talk.messages, tools=talk.tools or None, tokenize=False
        )
        if ours != theirs:
            raise ValueError(f"the chat template differs: {ours!r} != {theirs!r}")


def save_tokenizer(tokenizer: Any, out: Path) -> None:
    """Under the class name that transformers 4 knows as well; 5 writes one of its own."""
    tokenizer.save_pretrained(out)
    path = out / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name in ("backend", "is_local", "local_files_only"):
        settings.pop(name, None)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    tokenizer = train_tokenizer()
    check_tokenizer(tokenizer)
    save_tokenizer(tokenizer, out)
    print(f"{len(tokenizer)} tokens in {out}")


if __name__ == "__main__":
    main()
