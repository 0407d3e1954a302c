"""Cleaning up segmentations: what to remove is decided on the cross-validation, then done to every prediction."""
