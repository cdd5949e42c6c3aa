"""The state directory of a mesh: records, lock, files, free space."""
