"""The caller of the call that this task serves."""

from headrace.auth.check.interceptor import calling, current_caller, recheck_caller

__all__ = ["calling", "current_caller", "recheck_caller"]
