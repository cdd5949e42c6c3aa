"""The properties of an object, in order and number, as rules of a grammar. Pure."""

from __future__ import annotations

from headrace_worker.engine.rules.number_rules import AddRule
from headrace_worker.engine.rules.string_rules import literal, to_json
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.value_sets import Object

MAX_STATES = 5000


def object_rule(
    value_set: Object, values: dict[str, str], others: list[str], add: AddRule, prefix: str
) -> str:
    """Return the body of a rule; `prefix` begins the names of the rules that it needs.

    These are one for each state: how many names are passed, and how many properties are written,
    counted as far as it matters.

    Args:
        values: the rule of each declared name's value.
        others: names and values that are not declared.
    """
    names, maximum = list(value_set.properties), value_set.maximum
    counted = max(1, value_set.minimum, maximum or 0)
    if (len(names) + 1) * (counted + 1) > MAX_STATES:
        raise SchemaRefused("minProperties or maxProperties is too large to be enforced")

    def next_name(name: str, written: int, after: list[str | None]) -> list[str]:
        options = []
        following, skipped = after[min(written + 1, counted)], after[written]
        if following is not None and (maximum is None or written < maximum):
            key = literal(f"{', ' if written else ''}{to_json(name)}: ")
            options.append(f"{key} {values[name]} {following}")
        if skipped is not None and name not in value_set.required:
            options.append(skipped)
        return options

    # From the end, so that what comes next is known: None where nothing completes the object.
    after: list[str | None] = []
    for passed in range(len(names), -1, -1):
        states: list[str | None] = []
        for written in range(counted + 1):
            if passed == len(names):
                options = _end(value_set, others, written)
            else:
                options = next_name(names[passed], written, after)
            states.append(f"{prefix}_{passed}_{written}" if options else None)
            if options:
                add(f"{prefix}_{passed}_{written}", " | ".join(options))
        after = states
    assert after[0] is not None, "an object that nothing fulfils"
    return f'"{{" {after[0]} "}}"'


def _end(value_set: Object, others: list[str], written: int) -> list[str]:
    """Return what may come after the declared names."""
    minimum, maximum = value_set.minimum, value_set.maximum
    options = ['""'] if written >= minimum else []
    # A name that is not declared may come twice: it counts once.
    if others and (maximum is None or written < maximum) and written + 1 >= minimum:
        one = f"({' | '.join(others)})"
        first = one if written == 0 else f'", " {one}'
        left = "" if maximum is None else maximum - written - 1
        options.append(f'{first} (", " {one}){{0,{left}}}' if left != 0 else first)
    return options
