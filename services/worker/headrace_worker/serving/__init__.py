"""One served model from loading to unloading: card, adapters, reloads."""
