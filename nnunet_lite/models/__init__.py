"""Networks built from plans, checkpoints, and the folders trained models lie in."""
