"""Real servers for tests, on free ports. Shipped, so that applications may test against them."""
