"""The clients of a chaos run: of streams, of background requests and of batches.

Each records all that comes of its requests, as `StreamRecorder` has it.
"""
