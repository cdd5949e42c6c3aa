"""Leader election, bus messages to events, commands to calls."""
