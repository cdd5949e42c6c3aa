"""A schema's shapes as grammar rules (GBNF) or as a plainer schema."""
