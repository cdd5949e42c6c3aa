"""Files: rows in the database, bytes in the broker's object store, and what keeps the two one."""
