"""The trainer and its variants."""
