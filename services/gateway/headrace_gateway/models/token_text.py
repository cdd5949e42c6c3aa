"""The text of each token of a vocabulary by itself: its bytes, and those as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Protocol

import tokenizers

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True)
class TokenText:
    octets: bytes
    """The bytes that it adds to a text; often a part of a character."""
    is_special: bool
    """It adds nothing to a text."""
    text: str
    """A JSON string: its characters, and `\\xHH` for bytes that are none."""
    members: str
    """Of a JSON object: "token", as `text`, and "bytes"."""


class TokenTexts(Protocol):
    def __getitem__(self, token_id: int) -> TokenText: ...


class VocabularyTexts:
    """Tokens by id, each spelled once: at most as many as the vocabulary has are kept."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = tokenizer.get_added_tokens_decoder()
        decoder = json.dumps(json.loads(tokenizer.to_str())["decoder"])
        self._letters = _letters() if '"ByteLevel"' in decoder else {}
        self._has_bytes = '"ByteFallback"' in decoder
        self._spelled: dict[int, TokenText] = {}

    def __getitem__(self, token_id: int) -> TokenText:
        """Return the text of a token; an id that is no token has no bytes."""
        spelled = self._spelled.get(token_id)
        if spelled is None:
            spelled = self._spell(token_id)
            if self._tokenizer.id_to_token(token_id) is not None:
                self._spelled[token_id] = spelled
        return spelled

    def _spell(self, token_id: int) -> TokenText:
        octets = self._octets(token_id)
        text = json.dumps(octets.decode("utf-8", errors="backslashreplace"))
        listed = ",".join(map(str, octets))
        added = self._added.get(token_id)
        is_special = added is not None and added.special
        return TokenText(octets, is_special, text, f'"token":{text},"bytes":[{listed}]')

    def _octets(self, token_id: int) -> bytes:
        piece = self._tokenizer.id_to_token(token_id)
        if piece is None:
            return b""
        if token_id in self._added:
            return str(self._added[token_id].content).encode()
        if self._letters and all(letter in self._letters for letter in piece):
            return bytes(self._letters[letter] for letter in piece)
        if self._has_bytes and (byte := _BYTE.fullmatch(piece)):
            return bytes.fromhex(byte[1])
        # Why twice: decoders strip or join at the beginning of a text; the second of two tokens
        # shows what each adds.
        decode = self._tokenizer.decode
        once, twice = decode([token_id]), decode([token_id, token_id])
        return twice[len(once) :].encode()


class ById:
    """Tokens whose name is their id, as vLLM writes it; their bytes are their own."""

    def __init__(self, spelling: TokenTexts) -> None:
        self._spelling = spelling

    def __getitem__(self, token_id: int) -> TokenText:
        own = self._spelling[token_id]
        text = f'"token_id:{token_id}"'
        return replace(own, text=text, members=f'"token":{text},"bytes":{list(own.octets)}')


def _letters() -> dict[str, int]:
    """Return the byte of each letter of byte-level vocabularies: GPT-2's table, which all use."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    shifted = {chr(256 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in plain} | shifted
