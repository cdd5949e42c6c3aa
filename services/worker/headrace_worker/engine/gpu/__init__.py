"""What a GPU adds: async scheduling, captured graphs, the paged attention kernel."""
