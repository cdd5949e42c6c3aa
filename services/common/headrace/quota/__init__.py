"""Quotas as gateways use them: the calls to the quota keeper."""

from headrace.quota.client import QuotaClient

__all__ = ["QuotaClient"]
