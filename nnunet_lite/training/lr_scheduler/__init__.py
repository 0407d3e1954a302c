"""Learning rate schedules, functions of the epoch."""
