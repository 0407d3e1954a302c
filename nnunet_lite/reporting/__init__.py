"""A dataset and its models as one page for the browser."""
