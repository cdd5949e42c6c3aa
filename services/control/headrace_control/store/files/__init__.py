"""Files: a row each, whose bytes are in the broker's object store."""
