"""The key-value cache: contiguous or paged, blocks and prefixes."""
