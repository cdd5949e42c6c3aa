"""Settings, and the limits of the machine."""
