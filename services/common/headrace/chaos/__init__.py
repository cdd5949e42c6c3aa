"""Breaks a running mesh on purpose, under load, and judges what its clients saw."""
