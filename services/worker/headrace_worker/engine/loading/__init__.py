"""Load a transformers model, check how it can run, build its engine."""
