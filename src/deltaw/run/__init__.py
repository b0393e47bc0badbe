"""The run directory and adapter folders, which training writes and the analysis reads."""
