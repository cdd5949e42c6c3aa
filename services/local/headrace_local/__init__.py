"""A model in this process, without a mesh: a worker's engine behind a gateway's prompts and output.

It answers as a mesh does. Nothing listens, and no broker is needed.
"""
