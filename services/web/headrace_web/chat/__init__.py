"""Conversations: what is asked, and how its answers come to the database."""
