"""What operators do to a running mesh, over the bus: list, cancel, drain, resend."""
