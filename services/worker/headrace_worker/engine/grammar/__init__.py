"""Output held to grammars: compilation and masks, by xgrammar or llguidance."""
