"""Arms: what they are, which of them a run has, their layers on the base, and their files in PEFT's format."""
