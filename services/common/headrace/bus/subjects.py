"""Every subject of the mesh, and the message that travels on it.

Models are named here by their lane id, which functions of this module make of their names.
"""

from __future__ import annotations

from headrace.model_names import LANE_ID, SAFE_NAME, lane_id

REQUESTS = "headrace.requests"
"""Stream of RequestRecord, one subject per lane: headrace.requests.<lane id>.<priority>."""
INBOXES = "_INBOX"
"""What every reply subject begins with."""
RESULTS = "headrace.results"
"""Stream of ResultRecord of requests that have ended, by their keys."""
ENDED = "headrace.ended"
"""The same, which the broker publishes once they are stored."""
RESPONSES = "headrace.responses"
"""Stream of ResultRecord, the response cache: headrace.responses.<lane id>.<key>."""
CONVERSATIONS = "headrace.conversations"
"""Parts of what /v1/responses and /v1/conversations store:
headrace.conversations.<tenant>.<id>.<part>.<milliseconds>-<bytes>."""
DEAD_LETTERS = "headrace.dead"

WORKER_REPORTS = "headrace.reports.worker"
"""WorkerReport, from every worker to every scheduler and gateway."""
PREFIX_REPORTS = "headrace.reports.prefixes"
"""PrefixReport, from workers that have some to every scheduler."""
GATEWAY_REPORTS = "headrace.reports.gateway"
"""GatewayReport, from every gateway to every scheduler."""
LANE_REPORTS = "headrace.reports.lanes"
"""LaneReport, from every leader to every gateway."""
BROKER_REPORTS = "headrace.reports.broker"
"""BrokerReport, from the supervisor of the broker to everything connected."""
STORE_PROBES = "headrace.trials"
"""Empty messages, each stored in place of the last: whether the broker can store at all."""

USAGE = "headrace.usage"
"""UsageRecords, from every leader to the stream that control and the quota keeper read."""
USAGE_STORED = "headrace.usage_stored"
"""The same, which the broker publishes once they are stored."""

ACCESS_REPORTS = "headrace.control.access"
"""AccessReport -> AccessReportResponse, from every gateway to the active control process."""

OWN_USAGE = "headrace.control.usage"
"""OwnUsageRequest -> OwnUsageResponse, from gateways to the active control process."""

QUOTA = "headrace.quota"
"""QuotaRequest -> QuotaResponse, from every gateway to the quota keeper."""
QUOTA_JOURNAL = "headrace.journal.quota"
"""QuotaEntry, from the quota keeper to its successor, to be stored."""

ACCESS_TABLES = KEYS_TABLE, TENANTS_TABLE, SESSIONS_TABLE = "keys", "tenants", "sessions"
"""KeyRow by key id, TenantRow by tenant, SessionRow by the cookie's digest; written by control."""
PRICES_TABLE = "prices"
"""PriceRow by a digest of its model, currency and time; written by control."""
TABLES = (*ACCESS_TABLES, PRICES_TABLE)
TABLE_STAMP = "_published"
"""Row of each of these tables: TableStamp."""

ANY_GATEWAY = "any"
"""RequestRecord.gateway_id of a detached request that no gateway has published: the leader assigns
it to one."""


def tenant_row(tenant: str) -> str:
    """Key of a tenant's row: its name, whose dots would separate the parts of a subject."""
    return tenant.replace(".", "=")


PRIORITIES = ("interactive", "standard", "bulk")
"""Lower-case names of headrace.v1.Priority, most urgent first."""


def lane(model: str, priority: str) -> str:
    """RequestRecord, to be stored."""
    return f"{REQUESTS}.{lane_id(model)}.{priority}"


def former_lane(model: str, priority: str) -> str | None:
    """The same lane as versions before lane ids named it; None where they knew no such name."""
    if not SAFE_NAME.fullmatch(model) or LANE_ID.fullmatch(model):
        return None
    return f"{REQUESTS}.{model}.{priority}"


def response(model: str, key: str) -> str:
    """Of an answer that equal requests may have, to be stored."""
    return f"{RESPONSES}.{lane_id(model)}.{key}"


def conversation_part(tenant: str, item_id: str = "*", part: str = "*", stamp: str = "*") -> str:
    """A part of a stored response or conversation, to be stored; with `*`, all that there are."""
    return f"{CONVERSATIONS}.{tenant_row(tenant)}.{item_id}.{part}.{stamp}"


def result(request_key: str) -> str:
    """ResultRecord, to be stored."""
    # A tenant's name may have dots, which separate the parts of subjects.
    return f"{RESULTS}.{request_key.replace('.', '=')}"


def ended(request_key: str) -> str:
    """ResultRecord, which the broker publishes once it is stored. No process publishes here."""
    return result(request_key).replace(RESULTS, ENDED, 1)


def dead_letter(model: str) -> str:
    """DeadLetter, to be stored."""
    return f"{DEAD_LETTERS}.{lane_id(model)}"


def dispatch(worker_id: str) -> str:
    """DispatchRequest -> DispatchResponse."""
    return f"headrace.worker.{worker_id}.dispatch"


def worker_cancel(worker_id: str) -> str:
    """WorkerCancelRequest -> WorkerCancelResponse."""
    return f"headrace.worker.{worker_id}.cancel"


def worker_park(worker_id: str) -> str:
    """WorkerParkRequest -> WorkerParkResponse."""
    return f"headrace.worker.{worker_id}.park"


def settle(model: str) -> str:
    """SettleRequest -> SettleResponse, served by the model's leader."""
    return f"headrace.scheduler.{lane_id(model)}.settle"


def lost(model: str) -> str:
    """LostRequest -> LostResponse, served by the model's leader."""
    return f"headrace.scheduler.{lane_id(model)}.lost"


def park(model: str) -> str:
    """ParkRequest -> ParkResponse, served by the model's leader."""
    return f"headrace.scheduler.{lane_id(model)}.park"


def locate(model: str) -> str:
    """LocateRequest -> LocateResponse, served by the model's leader."""
    return f"headrace.scheduler.{lane_id(model)}.locate"


def live_requests(model: str) -> str:
    """ListLiveRequestsRequest -> ListLiveRequestsResponse, served by the model's leader."""
    return f"headrace.scheduler.{lane_id(model)}.list"


def drain(name: str) -> str:
    """DrainRequest, answered with the name by each process that has it."""
    return f"headrace.control.{_hexadecimal(name)}.drain"


def drained_mark(name: str) -> str:
    """SetDrainedRequest -> SetDrainedResponse, served by the supervisor of the worker of this
    name."""
    return f"headrace.supervisor.{_hexadecimal(name)}.drained"


def notice(gateway_id: str) -> str:
    """NoticeRequest -> NoticeResponse."""
    return f"headrace.gateway.{gateway_id}.notice"


def inbox_prefix(user: str) -> str:
    """Return what the replies to a user of the broker come to; no other user may receive them."""
    return f"{INBOXES}_{user}"


def _hexadecimal(name: str) -> str:
    # A name may hold what has a meaning in subjects.
    return name.encode().hex()
