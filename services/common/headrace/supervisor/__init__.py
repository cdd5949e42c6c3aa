"""Runs the mesh of one machine: starts, probes, restarts and stops its processes."""
