"""One machine's mesh: which processes it has, how they are started, kept, watched and ended."""
