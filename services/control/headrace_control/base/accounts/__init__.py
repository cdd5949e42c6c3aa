"""Accounts as pure rules: what a record costs, and which sums it is a part of."""
