"""Losses, by upstream's names."""
