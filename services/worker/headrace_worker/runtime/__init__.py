"""The running batch: assignments, the engine's thread, delivery to gateways."""
