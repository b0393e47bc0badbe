"""The keys of both commands: types, meanings, limits and help."""
