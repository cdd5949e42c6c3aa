"""Open requests and the workers' streams that feed them."""
