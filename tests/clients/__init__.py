"""Other people's clients, each in the versions that its own lock file has, against a whole mesh."""
