"""Interfaces of engines, and what all of them share."""
