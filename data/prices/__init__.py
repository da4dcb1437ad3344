"""Bars and corporate actions: where they come from and when they were known."""
