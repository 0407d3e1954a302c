"""The commands: the only place that parses arguments, and the only one that prints."""
