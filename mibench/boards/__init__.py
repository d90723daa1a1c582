"""Leaderboards: a suite, ranking rules, entries and a history. Reading and ranking need no torch."""
