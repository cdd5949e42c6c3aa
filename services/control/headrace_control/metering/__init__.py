"""What the active control process does with usage: it stores each record, and deletes old rows."""
