"""Settings, metrics and small mechanisms that all floors above use."""
