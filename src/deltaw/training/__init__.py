"""The training of arms side by side, with Lightning."""
