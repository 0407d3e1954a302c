"""Training: data loading and augmentation, losses, the trainer, final validation."""
