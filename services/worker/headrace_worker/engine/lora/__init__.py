"""LoRA adapters: their files, where they apply, and each row with its own."""
