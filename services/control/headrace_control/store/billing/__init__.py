"""Prices and statements in the database."""
