"""JSON bodies: which fields they may have, how they are read, and what they convert to."""
