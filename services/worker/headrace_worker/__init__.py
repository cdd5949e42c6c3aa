"""The worker: takes batches, runs them in an engine step by step, streams tokens to gateways."""
