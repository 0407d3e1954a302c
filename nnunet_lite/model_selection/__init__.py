"""Which model or ensemble to use, by cross-validation."""
