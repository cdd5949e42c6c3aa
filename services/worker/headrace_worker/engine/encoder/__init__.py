"""Engine of models that make vectors."""
