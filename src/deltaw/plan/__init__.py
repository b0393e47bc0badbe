"""What a run takes, counted and reckoned before it starts."""
