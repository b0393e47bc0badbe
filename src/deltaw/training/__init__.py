"""Training of several arms side by side on one base, with Lightning."""
