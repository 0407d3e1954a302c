"""Augmentation: what is drawn, how it is applied, and the pipelines of upstream."""
