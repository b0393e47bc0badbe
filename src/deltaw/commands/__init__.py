"""What the entry points do: train, plan, analyze, sweep, fold."""
