"""What every service shares: messages, bus, settings, errors, telemetry, client, CLI."""
