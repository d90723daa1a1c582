"""The static site of the boards: pages that open from disk, ask nobody for anything, and escape all words."""
