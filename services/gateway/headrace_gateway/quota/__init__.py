"""Quotas: what a request may use is reserved with the quota keeper before the request is queued."""
