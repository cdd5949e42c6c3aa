"""The pure state machine of one model's requests: events and time in, commands out."""
