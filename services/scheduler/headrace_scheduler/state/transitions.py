"""All moves of a request between its states, as data: which event leads from where to where.

    submitted ──► held ─────────► lost ◄──────────┐
        │           │ reported      │ gateway      │ worker gone, parked, vanished,
        │           ▼               ▼ fenced       │ dispatch unanswered
        ├───────────┼─────────► waiting ─────────► running
        │           │               ▲ dispatched      │
        │           └───────────────┼── found there ──┤
        │ lane full                 └─── refused ─────┘
        ▼
      ending ◄── deadline, patience, cancellation, attempts exhausted: from every state

When a request's gateway settles it, it is acknowledged and gone, from every state. If its gateway
is lost, it is orphaned until another takes it over, which makes it lost; or it is abandoned, or
its result is stored if it is detached. Nothing here is executed: the code of `machine` and
`LiveRequests` decides, and the tests compare every move that they see with this table.
"""

from __future__ import annotations

TIME = "Time"
"""Not an event: what is decided without one, by time or because all that is needed is known."""

_NOT_KEPT = "its gateway is lost, and no other may have it"
_ROWS = (
    ("new", "Submitted", "held", "every request begins so, within one event"),
    ("held", "Submitted", "waiting", "it is admitted to its lane"),
    ("held", "Submitted", "ending", "its lane is full"),
    ("held", "Submitted", "running", "a worker has reported that it runs it"),
    ("held", "Submitted", "orphaned", "an operator has resent it: no gateway holds it yet"),
    ("held waiting running", "WorkerReported", "running", "adopted: a newer attempt runs there"),
    ("running", "WorkerReported", "lost", "its worker leaves, or its dispatch has not arrived"),
    ("running", "DispatchAnswered", "waiting", "the worker refused it"),
    ("running", "DispatchUnanswered", "waiting", "the worker is not connected to the broker"),
    ("waiting", "DispatchAnswered", "ending", "the refusal holds for every worker"),
    ("running", "Parked", "lost", "its worker parked it, or its engine failed"),
    ("running", "Parked", "ending", "its attempts are exhausted"),
    ("running", "StreamLost", "lost", "its gateway lost its worker's stream, or waits for quota"),
    ("held waiting running lost", "CancelRequested", "ending", "it was cancelled"),
    ("orphaned", "CancelRequested", "gone", "it was cancelled, and no gateway holds it"),
    ("held waiting running lost orphaned ending", "Settled", "gone", "its gateway relayed its end"),
    ("lost", "NoticeAnswered", "waiting", "its gateway has fenced it and reported its progress"),
    ("lost", "NoticeAnswered", "ending", "its gateway fenced it; its attempts are exhausted"),
    ("lost", "NoticeAnswered", "orphaned", "unknown to the gateway, and another may take it over"),
    ("lost", "NoticeAnswered", "gone", "unknown to the gateway, and no client waits for it"),
    ("ending", "NoticeAnswered", "gone", "unknown to the gateway: no client waits for its end"),
    ("orphaned", "TakeOverRequested", "lost", "its client has connected to another gateway"),
    ("waiting running", "TakeOverRequested", "lost", "its gateway missed that it took it over"),
    ("lost", "TakeOverRequested", "waiting", "its new gateway reported its progress"),
    ("lost", "TakeOverRequested", "ending", "its gateway fenced it; its attempts are exhausted"),
    ("orphaned", "GatewayReported", "lost", "its gateway is back, or another has taken it over"),
    ("waiting running", "GatewayReported", "lost", "under an earlier leader another took it over"),
    ("held waiting running lost", "GatewayReported", "orphaned", "its gateway leaves or drains"),
    ("held waiting running lost ending", "GatewayReported", "gone", _NOT_KEPT),
    ("held waiting running lost", "NoticeUnanswered", "orphaned", "its gateway is disconnected"),
    ("held waiting running lost ending", "NoticeUnanswered", "gone", _NOT_KEPT),
    ("held waiting running lost", TIME, "orphaned", "its gateway is silent"),
    ("held waiting running lost ending", TIME, "gone", _NOT_KEPT),
    ("held", TIME, "lost", "no worker runs it after a take-over: its gateway is to fence it"),
    ("waiting", TIME, "running", "it is dispatched"),
    ("waiting", TIME, "ending", "deadline or patience passed, or its model was removed"),
    ("running", TIME, "lost", "its worker is silent, or reports it no more and it is not settled"),
    ("running lost", TIME, "ending", "its deadline passed"),
    ("orphaned", TIME, "lost", "it is detached and assigned to another gateway"),
    ("orphaned", TIME, "gone", "no gateway has taken it over in time, or its model was removed"),
)

TRANSITIONS = {
    (before, event, after): reason
    for befores, event, after, reason in _ROWS
    for before in befores.split()
}


def markdown_table() -> str:
    """Return the table for the documentation, sorted by state."""
    order = ("new", "held", "waiting", "running", "lost", "orphaned", "ending")
    rows = sorted(TRANSITIONS.items(), key=lambda row: (order.index(row[0][0]), row[0]))
    lines = ["| state | event | next state | when |", "|---|---|---|---|"]
    lines += (f"| {before} | `{event}` | {after} | {why} |" for (before, event, after), why in rows)
    return "\n".join(lines)
