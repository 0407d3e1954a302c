"""Trainers that differ from nnUNetTrainer in a line or two."""
