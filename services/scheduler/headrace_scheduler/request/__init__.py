"""One request: its states, its tenant's share, its known prefixes."""
