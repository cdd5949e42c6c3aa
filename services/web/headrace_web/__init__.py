"""The page of a mesh: chat, arena and the operator's view."""
