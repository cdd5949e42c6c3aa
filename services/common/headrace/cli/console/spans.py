"""Lengths of time, as options of commands have them."""

from __future__ import annotations

import re
from datetime import timedelta

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Span(click.ParamType[timedelta]):
    """A length of time, as 90s, 12h, 30d or 2w."""

    name = "span"

    def convert(
        self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        if (found := re.fullmatch(r"(\d{1,9})([smhdw])", value.strip())) is None:
            self.fail(f"{value!r} is no length of time; write one as 90s, 12h, 30d or 2w")
        return timedelta(seconds=int(found[1]) * _UNITS[found[2]])
