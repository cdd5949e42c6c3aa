"""Stored responses and conversations: what is stored of them, and up to which bounds."""
