"""How the commands print, and the options that all of them have."""
