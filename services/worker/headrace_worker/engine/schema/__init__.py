"""JSON Schema to the shapes that a value may have at each place."""
