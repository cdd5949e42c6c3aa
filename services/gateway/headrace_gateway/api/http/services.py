"""What the handlers of every API use."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.conversations.store import ConversationStore
from headrace_gateway.models.catalog import Catalog
from headrace_gateway.quota.reservations import Quotas
from headrace_gateway.quota.usage_today import UsageToday
from headrace_gateway.resume.open_or_resume import RequestOpener
from headrace_gateway.resume.ports import Directory, Fleet
from headrace_gateway.submit.embedding import Embedding
from headrace_gateway.submit.submitter import Submitter


@dataclass(frozen=True, slots=True)
class ApiServices:
    """One for all APIs of a gateway."""

    catalog: Catalog
    submitter: Submitter
    embedding: Embedding
    opener: RequestOpener
    requests: Directory
    conversations: ConversationStore
    fleet: Fleet
    quotas: Quotas
    usage_today: UsageToday
    settings: GatewaySettings


class ApiServicer:
    """The base of the gRPC services whose handlers use `ApiServices`."""

    def __init__(self, services: ApiServices) -> None:
        self.services = services
