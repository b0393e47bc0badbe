"""From adapters to tables."""
