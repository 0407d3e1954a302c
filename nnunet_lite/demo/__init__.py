"""A small realistic dataset and the whole pipeline on it."""
