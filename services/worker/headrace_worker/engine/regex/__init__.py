"""Regular expressions of JSON Schema as automata over characters."""
