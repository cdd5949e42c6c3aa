"""Workers and lanes as their reports on the bus show them, for whatever process receives these."""
