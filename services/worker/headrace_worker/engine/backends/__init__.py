"""Engines that run elsewhere or run no model: llama.cpp, vLLM, OpenAI servers, scripted."""
