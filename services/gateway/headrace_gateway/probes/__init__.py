"""What is asked before requests are sent: health, version, the description of the paths."""
