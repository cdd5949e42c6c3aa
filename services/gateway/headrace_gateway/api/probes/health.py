"""Pure room: whether this gateway can admit requests, and whether it can serve any.

Workers do not count: a request for a model without a worker waits in its lane. GET /ping and the
gRPC health say whether there is a `problem`; GET /health also says whether no model can be served
yet. A gateway without a model still serves files, administration and the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class ModelState(StrEnum):
    READY = "ready"
    """A worker serves it."""
    LOADING = "loading"
    """No worker has announced it yet, or this gateway is loading its tokenizer."""
    UNUSABLE = "unusable"
    """Its card or its tokenizer cannot be read."""
    NO_WORKER = "no_worker"
    """Requests for it wait in their lanes."""


@dataclass(frozen=True, slots=True)
class Health:
    """How this gateway stood at one moment."""

    leaving: bool
    """It has been requested to stop."""
    broker_connected: bool
    starting: bool = False
    """The models that there are have not all been read yet."""
    access_problem: str = ""
    """Why callers cannot be checked yet; empty if they can be, or need no keys."""
    broker_fault: str = ""
    """Why the broker does not store, where that is known."""
    models: Mapping[str, ModelState] = field(default_factory=dict)
    unannounced: frozenset[str] = frozenset()
    """Models that are configured, and that were never usable yet."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Models whose cards or tokenizers cannot be read: why."""
    leader_age_s: float | None = None
    """Since the last report of any model's leader; None: there was none yet."""
    token_age_s: float | None = None
    """Since the last token came from any worker, for callers or for canaries."""
    window_s: float = 15.0
    """How old the last report may be."""

    @property
    def problem(self) -> str | None:
        """Return why it cannot admit requests; None if it can."""
        if self.leaving:
            return "leaving"
        if not self.broker_connected:
            return "out of reach of NATS"
        if self.broker_fault:
            return f"the broker cannot store requests: {self.broker_fault}"
        if self.access_problem:
            return self.access_problem
        if self.starting:
            return "reading the models that there are"
        if not self.models:
            return None  # nothing to admit, and nothing that its scheduler would report
        if self.leader_age_s is None:
            return "no scheduler has reported yet"
        if self.leader_age_s > self.window_s:
            return f"no scheduler has reported for {self.leader_age_s:.0f} s"
        return None

    @property
    def not_serving(self) -> str | None:
        """Return why no request of a client can be served yet; None if some can.

        A gateway that waits for its first model can already refuse requests with the reason, so it
        has no `problem`.
        """
        if (problem := self.problem) is not None:
            return problem
        if any(state is not ModelState.LOADING for state in self.models.values()):
            return None
        # No counts and no names: not every caller may know which models there are.
        if (self.models.keys() | self.unannounced) - self.unusable.keys():
            return "no model can be served yet: what is configured is being loaded"
        if self.unusable:
            return "no model can be served: a model's card or tokenizer cannot be read"
        return "no model can be served: none is configured, and no worker has announced one"

    def details(self) -> tuple[str, ...]:
        """Return lines for people and alerts; they decide nothing."""
        age_s = self.token_age_s
        token = "no token has come yet" if age_s is None else f"last token {age_s:.0f} s ago"
        return (token, *(f"model {name}: {state}" for name, state in self.models.items()))

    def body(self, may_see: Callable[[str], bool]) -> bytes:
        """Return what GET /health answers; `may_see` says of which models."""
        problem = self.not_serving
        answer: dict[str, object] = {"status": "ok" if problem is None else "unavailable"}
        if problem is not None:
            answer["reason"] = problem
        known = dict.fromkeys(self.unannounced, ModelState.LOADING) | dict(self.models)
        known |= dict.fromkeys(self.unusable, ModelState.UNUSABLE)
        models = {name: state for name, state in sorted(known.items()) if may_see(name)}
        return json.dumps(answer | {"models": models}).encode()
