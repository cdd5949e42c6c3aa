"""Dispatches from schedulers in, reports to schedulers out, the step watchdog."""
