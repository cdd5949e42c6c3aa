"""Served models: cards, tokenizers, chat templates, detokenization."""
