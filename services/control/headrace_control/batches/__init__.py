"""Batches: their input is validated, their rows are fed to gateways, their files are written."""
