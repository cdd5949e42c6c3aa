"""Signing people in: the OpenID Connect code flow, and who of those it proves may come in.

A provider proves who somebody is; memberships, which are in the store, say what this person may do.
"""
