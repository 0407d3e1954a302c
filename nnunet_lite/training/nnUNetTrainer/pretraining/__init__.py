"""Trainers that start from self-supervised (nnssl) checkpoints."""
