"""The control plane: tenants, keys and people in a database, published to the gateways."""
