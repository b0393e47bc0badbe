"""What a run takes, counted before it starts, and the engine that suits it."""
