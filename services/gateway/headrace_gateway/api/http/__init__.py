"""What every HTTP API shares: responses, error bodies, slow readers, call counters."""
