"""What happened, and when it was known: sources, the lake, sessions, panels, splits, the simulator."""
