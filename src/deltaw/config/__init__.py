"""The settings of both commands: their types, and what no run can have."""
