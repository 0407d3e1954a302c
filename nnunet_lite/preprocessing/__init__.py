"""From the raw image to the arrays the network sees, and back."""
