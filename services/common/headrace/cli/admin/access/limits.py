"""Options of limits, and how limits are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from headrace.admin.v1 import tenants_pb2 as pb
from headrace.billing.money import amount_text, nanos_of

F = TypeVar("F", bound=Callable[..., Any])

_BUDGET, _BUDGET_NANOS = "budget_per_month", "budget_nanos_per_month"
LIMITS = tuple(field.name for field in pb.Limits.DESCRIPTOR.fields if field.name != _BUDGET_NANOS)


class Money(click.ParamType[int]):
    """An amount of money, as 12.50; the command gets nano-units."""

    name = "amount"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            found = nanos_of(value)
        except ValueError as error:
            self.fail(str(error))
        return found if found >= 0 else self.fail(f"{value} is less than 0")


class OfModel(click.ParamType[pb.ModelLimits]):
    """Limits of a model, as valley:requests_per_minute=20,budget_per_month=5."""

    name = "model:limit=n,..."

    def convert(
        self,
        value: str | pb.ModelLimits,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> pb.ModelLimits:
        if isinstance(value, pb.ModelLimits):
            return value
        model, _, listed = value.rpartition(":")
        if not model:
            self.fail(f"{value!r} names no model; write it as valley:requests_per_minute=20")
        found = pb.ModelLimits(model=model)
        for each in listed.split(","):
            name, _, given = each.strip().partition("=")
            name = name.replace("-", "_")
            if name == _BUDGET:
                found.limits.budget_nanos_per_month = Money().convert(given, param, ctx)
            elif name not in LIMITS:
                known = ", ".join((*LIMITS, _BUDGET))
                self.fail(f"{name!r} is no limit; limits are {known}")
            elif not given.isdecimal():
                self.fail(f"{name} is {given!r}; it must be a number")
            else:
                setattr(found.limits, name, int(given))
        return found


def limit_options(command: F) -> F:
    """Add an option for each limit; the command gets those that are given as keywords."""
    command = click.option(
        "--budget-per-month",
        _BUDGET_NANOS,
        type=Money(),
        help="Most money in a calendar month, as 12.50, in the tenant's currency; 0: any.",
    )(command)
    for name in reversed(LIMITS):
        words = name.replace("_", " ")
        add = click.option(
            f"--{name.replace('_', '-')}",
            type=click.IntRange(min=0),
            help=f"Most {words}; 0: any.",
        )
        command = add(command)
    return command


model_limit_option = click.option(
    "--model-limit",
    "model_limits",
    type=OfModel(),
    multiple=True,
    help="Limits of one model, as valley:requests_per_minute=20,tokens_per_day=5000. May be"
    " repeated.",
)


def chosen_limits(options: Mapping[str, Any]) -> dict[str, int]:
    """Return those of `limit_options` that were given."""
    names = (*LIMITS, _BUDGET_NANOS)
    return {name: options[name] for name in names if options[name] is not None}


def shown_limits(limits: pb.Limits) -> dict[str, int | str]:
    """Return the limits that there are; a budget as an amount."""
    found: dict[str, int | str] = {field.name: value for field, value in limits.ListFields()}
    if found.pop(_BUDGET_NANOS, None) is not None:
        found[_BUDGET] = amount_text(limits.budget_nanos_per_month)
    return found


def shown_model_limits(each_limits: Iterable[pb.ModelLimits]) -> dict[str, object]:
    return {each.model: shown_limits(each.limits) for each in each_limits}


def limits_text(limits: pb.Limits) -> str:
    return ", ".join(f"{value} {name}" for name, value in shown_limits(limits).items()) or "-"
