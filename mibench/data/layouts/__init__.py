"""Layouts of the data sets that `mibench data prepare` knows, by name."""
