"""What the active control process does: it keeps the tables on the bus as the database says."""
