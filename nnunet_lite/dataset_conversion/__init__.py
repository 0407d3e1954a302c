"""Datasets of other layouts become nnU-Net raw datasets."""
