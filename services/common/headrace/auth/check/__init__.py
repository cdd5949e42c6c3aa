"""The check of every call: who calls, from where, and whether this caller may."""
