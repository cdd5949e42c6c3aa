"""Where a request is, as data: open at this gateway, finished, or as its leader answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.bus import RESULT_KEPT_S
from headrace.internal.v1.reports_pb2 import LocateResponse, ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.request_keys import public_id
from headrace.v1 import requests_pb2
from headrace_gateway.stream.open_request import OpenRequest


@dataclass(frozen=True, slots=True)
class Location:
    """A located request: local, finished or remote, by which of the three fields is set."""

    open_request: OpenRequest | None = None
    """It is open at this gateway."""
    result: ResultRecord | None = None
    """It has finished, and its result is stored or about to be."""
    leader: LocateResponse = field(default_factory=LocateResponse)
    """The answer of its leader, if it was requested; also of a request that is open here."""

    @property
    def record(self) -> RequestRecord:
        """The request without its prompt and output."""
        if self.open_request is not None:
            return self.open_request.record
        return self.leader.record if self.result is None else self.result.request

    @property
    def failed(self) -> bool:
        """Whether it has finished with an error."""
        return self.result is not None and self.result.outcome.HasField("error")

    def status(self) -> requests_pb2.Request:
        """Return the request as the API describes it."""
        record, result = self.record, self.result
        request = requests_pb2.Request(
            request_id=public_id(record.request_id),
            model=record.model,
            priority=record.priority,
            create_time=record.arrival,
            detached=record.detached,
        )
        if result is not None:
            request.state, request.attempt = requests_pb2.REQUEST_STATE_ENDED, result.attempt
            request.outcome.CopyFrom(result.outcome)
            if result.HasField("end_time"):
                request.end_time.CopyFrom(result.end_time)
        else:
            self._add_progress(request)
        end = request.end_time if request.HasField("end_time") else record.deadline
        kept_ns = record.result_ttl.ToNanoseconds() or int(RESULT_KEPT_S * 1e9)
        if end.ToNanoseconds():
            request.expire_time.FromNanoseconds(end.ToNanoseconds() + kept_ns)
        return request

    def _add_progress(self, request: requests_pb2.Request) -> None:
        """Add the attempt, the worker and the state of a request that has not finished."""
        attempt = self.open_request.output.newest_attempt if self.open_request is not None else 0
        running = self.leader.running if self.leader.found else attempt > 0
        request.attempt = max(attempt, self.leader.record.attempt)
        request.worker = self.leader.worker_name
        if self._waits_for_quota:
            request.state = requests_pb2.REQUEST_STATE_PAUSED
        elif running:
            request.state = requests_pb2.REQUEST_STATE_RUNNING
        else:
            request.state = requests_pb2.REQUEST_STATE_WAITING

    @property
    def _waits_for_quota(self) -> bool:
        if self.open_request is not None:  # It knows before the leader does.
            return self.open_request.waits_for_quota
        return self.leader.waits_for_quota
