"""Live requests and what is known of lanes, waiting times and tenants."""
