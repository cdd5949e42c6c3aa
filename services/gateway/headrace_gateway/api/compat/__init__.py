"""Paths of other serving systems: Cohere, vLLM, llama.cpp, text-embeddings-inference."""
