"""The mesh, as web uses it: gateways, and requests on behalf of people."""
