"""How calls are made: their scripts, when they are sent again, and the links that perform them."""
