"""Formats of strings, each as a regular expression that matches all of it.

They are narrower than the standards where these allow what readers of JSON rarely accept.
"""

from __future__ import annotations

_YEAR = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_DATE = (
    f"{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{_CLOCK})"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_GROUP = "[0-9A-Fa-f]{1,4}"
_PATH = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_SEGMENTS = f"(?:/{_PATH}{{0,40}}){{0,8}}"
# Bounded, so that it is within the lengths that are usual beside it.
_URI = (
    rf"[A-Za-z][A-Za-z0-9+.-]{{0,15}}://{_LABEL}(?:\.{_LABEL}){{0,3}}(?::[1-9][0-9]{{0,3}})?"
    rf"{_SEGMENTS}(?:\?(?:{_PATH}|[/?]){{0,100}})?(?:#(?:{_PATH}|[/?]){{0,40}})?"
)
_HEX = "[0-9a-fA-F]"
_COUNT = "[0-9]{1,4}"
_DATE_PARTS = (
    f"(?:{_COUNT}Y(?:{_COUNT}M(?:{_COUNT}D)?)?|{_COUNT}M(?:{_COUNT}D)?|{_COUNT}D)"
    f"(?:T{_COUNT}H(?:{_COUNT}M)?)?"
)
_TIME_PARTS = f"T(?:{_COUNT}H(?:{_COUNT}M(?:{_COUNT}S)?)?|{_COUNT}M(?:{_COUNT}S)?|{_COUNT}S)"
_POINTER = "(?:/(?:[^/~]|~[01])*)*"
_WORD = "[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"

FORMATS: dict[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": f"P(?:{_COUNT}W|{_DATE_PARTS}|{_TIME_PARTS})",
    # Without bounds of length: beside an expression for the same, these take many states.
    "email": rf"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@(?:{_WORD}\.)+[A-Za-z]{{2,}}",
    "hostname": rf"{_LABEL}(?:\.{_LABEL}){{0,2}}",
    "ipv4": rf"{_OCTET}(?:\.{_OCTET}){{3}}",
    "ipv6": (
        f"(?:{_GROUP}:){{7}}{_GROUP}|::(?:{_GROUP}(?::{_GROUP}){{0,5}})?"
        f"|{_GROUP}::(?:{_GROUP}(?::{_GROUP}){{0,4}})?"
    ),
    "uuid": rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    "uri": _URI,
    "uri-reference": rf"{_URI}|(?:/{_PATH}{{1,40}}){{1,8}}",
    "json-pointer": _POINTER,
    "relative-json-pointer": f"(?:0|[1-9][0-9]{{0,3}})(?:#|{_POINTER})",
}
