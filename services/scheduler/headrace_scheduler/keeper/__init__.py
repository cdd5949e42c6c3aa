"""The quota keeper: one process of the mesh that decides on all reservations."""
