"""What all of control stands on: settings, metrics, records."""
