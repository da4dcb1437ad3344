"""Headlines: where they come from, when they were known, which ticker they name."""
