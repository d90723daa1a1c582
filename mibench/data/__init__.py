"""Data: labeled images, splits by identity, procedural faces, image folders."""
