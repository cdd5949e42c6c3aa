"""One machine's mesh: processes started, watched, replaced and stopped."""
