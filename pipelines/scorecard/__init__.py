"""What forecasts turned out to be worth: settled, sealed, measured live, and held against each other."""
