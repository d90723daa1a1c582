"""Metrics, one a file; the file's stem is the metric's name."""
