"""Averaging the probabilities of several models."""
