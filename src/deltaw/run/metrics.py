"""The metrics that validation reports beside the loss, and their titles in tables. For each, more is better."""

MEASURED = {"accuracy": "accuracy", "exact_match": "exact match", "f1": "F1", "matthews": "Matthews"}
