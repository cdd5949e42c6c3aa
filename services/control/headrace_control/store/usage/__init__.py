"""Usage in the database: rows, their sums, and what follows from them."""
