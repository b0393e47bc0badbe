"""Arms: records, layers on the base, and PEFT's format."""
