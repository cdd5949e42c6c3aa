"""Forward passes: packed rows, one cache per sequence, tensor parallel."""
