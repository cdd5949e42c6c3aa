"""Workers of a model, and the policies that choose among them."""
