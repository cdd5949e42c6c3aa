"""From a checked request to an open generation; embeddings, canaries, deadlines."""
