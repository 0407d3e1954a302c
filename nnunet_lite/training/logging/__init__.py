"""What a training records: curves, log file, figure."""
