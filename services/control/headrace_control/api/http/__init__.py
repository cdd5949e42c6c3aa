"""Answers of methods that speak HTTP: OpenAI's APIs that control serves."""
