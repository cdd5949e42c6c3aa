"""Pure room: log probabilities as OpenAI's JSON, and vLLM's for prompts.

Written by hand from members that are spelled once: twenty likely tokens beside each
token are twenty times the text.
"""

from __future__ import annotations

import json
from codecs import getincrementaldecoder
from collections.abc import Iterable

from headrace.logprobs import Row
from headrace_gateway.models.token_text import TokenText, TokenTexts

TokenLogprobs = tuple[int, Row | None]
"""A token id and its log probabilities; None for a prompt's first token, which nothing precedes."""

_DECODER = getincrementaldecoder("utf-8")


class TextOffset:
    """Counts the offsets of a choice's tokens in its text, in characters."""

    def __init__(self) -> None:
        self._at = 0
        self._decoder = _DECODER("replace")

    def advance(self, token: TokenText) -> int:
        """Return the offset of the token: of the character that it begins or belongs to."""
        begin = self._at
        if not token.is_special:
            self._at += len(self._decoder.decode(token.octets))
        return begin


def chat_logprobs(rows: Iterable[TokenLogprobs], spelling: TokenTexts) -> str:
    """Return `choices[].logprobs` of a chat answer."""
    entries = []
    for token_id, row in rows:
        own, top_ids, top = row or (0.0, [], [])
        likeliest = ",".join(
            f'{{{spelling[other].members},"logprob":{logprob:.7g}}}'
            for other, logprob in zip(top_ids, top, strict=True)
        )
        entries.append(
            f'{{{spelling[token_id].members},"logprob":{own:.7g},"top_logprobs":[{likeliest}]}}'
        )
    return f'{{"content":[{",".join(entries)}],"refusal":null}}'


def completion_logprobs(
    rows: Iterable[TokenLogprobs], spelling: TokenTexts, place: TextOffset, *, width: int
) -> str:
    """Return `choices[].logprobs` of a completion; each token is also among its likeliest."""
    tokens, own, top, offsets = [], [], [], []
    for token_id, row in rows:
        spelled = spelling[token_id]
        tokens.append(spelled.text)
        offsets.append(str(place.advance(spelled)))
        own.append("null" if row is None else f"{row[0]:.7g}")
        top.append("null" if row is None else _likeliest(token_id, row, spelling, width))
    return (
        f'{{"tokens":[{",".join(tokens)}],"token_logprobs":[{",".join(own)}],'
        f'"top_logprobs":[{",".join(top)}],"text_offset":[{",".join(offsets)}]}}'
    )


def _likeliest(token_id: int, row: Row, spelling: TokenTexts, width: int) -> str:
    own, top_ids, top = row
    # Tokens that are spelled alike have one place; it is the likeliest's.
    texts: dict[str, float] = {}
    for other, logprob in zip(top_ids[:width], top[:width], strict=True):
        texts.setdefault(spelling[other].text, logprob)
    texts.setdefault(spelling[token_id].text, own)
    return _object(f"{text}:{logprob:.7g}" for text, logprob in texts.items())


def _object(members: Iterable[str]) -> str:
    return f"{{{','.join(members)}}}"


def prompt_logprobs(rows: Iterable[TokenLogprobs], spelling: TokenTexts, *, width: int) -> str:
    """Return vLLM's `prompt_logprobs`: of each token by id, those of the likeliest and its own."""
    places = []
    for token_id, row in rows:
        if row is None:
            places.append("null")
            continue
        own, top_ids, top = row
        ranked = zip(top_ids[:width], top[:width], range(1, width + 1), strict=False)
        entries = {other: _entry(logprob, rank, spelling[other]) for other, logprob, rank in ranked}
        entries.setdefault(token_id, _entry(own, None, spelling[token_id]))
        places.append(_object(f'"{other}":{entry}' for other, entry in entries.items()))
    return f"[{','.join(places)}]"


def _entry(logprob: float, rank: int | None, token: TokenText) -> str:
    return f'{{"logprob":{logprob:.7g},"rank":{json.dumps(rank)},"decoded_token":{token.text}}}'
