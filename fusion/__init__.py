"""Vectors to a forecast distribution: fusions, the head, the assembled model."""
