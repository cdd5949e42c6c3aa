"""The state directory: records, locks, files, free space."""
