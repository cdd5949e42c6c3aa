"""Sampling: penalties, masks, noise by counter, log probabilities."""
