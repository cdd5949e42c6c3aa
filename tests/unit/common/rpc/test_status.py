"""Errors as google.rpc.Status, and back."""

from __future__ import annotations

from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from headrace.errors import (
    Code,
    GatewayUnreachable,
    HeadraceError,
    LaneFull,
    QuotaViolation,
    RateLimitExceeded,
)
from headrace.rpc.status import from_status, to_status

VIOLATION = QuotaViolation(
    limit="tokens_per_minute",
    scope="key_model",
    subject="tenants/acme/keys/k1",
    model="valley",
    value=1000,
    used=900,
    requested=200,
)


def refused() -> HeadraceError:
    error = RateLimitExceeded("the limit is reached", retry_after_s=12.5)
    error.violation = VIOLATION
    return error


def test_a_refusal_by_a_limit_comes_back_with_its_time_and_its_limit() -> None:
    error = from_status(to_status(refused()))
    assert isinstance(error, RateLimitExceeded)
    assert (error.message, error.retry_after_s) == ("the limit is reached", 12.5)
    assert error.violation == VIOLATION


def test_it_has_the_details_that_grpc_has_for_quotas() -> None:
    info, failure, retry = details.ErrorInfo(), details.QuotaFailure(), details.RetryInfo()
    for detail in to_status(refused()).details:
        assert detail.Unpack(info) or detail.Unpack(failure) or detail.Unpack(retry)
    assert (info.reason, info.metadata["limit"]) == ("RATE_LIMIT_EXCEEDED", "tokens_per_minute")
    (violation,) = failure.violations
    assert (violation.subject, violation.quota_value) == ("tenants/acme/keys/k1", 1000)
    assert violation.quota_dimensions == {"model": "valley"}
    assert retry.retry_delay.ToMilliseconds() == 12_500


def test_another_error_has_no_limit() -> None:
    assert from_status(to_status(LaneFull("full", retry_after_s=1))).violation is None


def test_a_status_that_a_proxy_gave_is_that_of_a_gateway_that_cannot_be_reached() -> None:
    foreign = Status(code=Code.UNAVAILABLE.number, message="upstream connect error")
    assert type(from_status(foreign)) is GatewayUnreachable
