"""Injects faults into a running mesh under load, and judges what its clients received.

`run` sends every request once undisturbed, then again and again while it injects faults; `history`
is the event log that it writes; `judge` checks that log afterwards, and `scorecard` sums it up.
"""
