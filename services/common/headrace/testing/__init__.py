"""Real servers on free ports, so that applications can test against them."""

from headrace.testing.nats_server import NatsServer, nats_cluster, nats_server

__all__ = ["NatsServer", "nats_cluster", "nats_server"]
