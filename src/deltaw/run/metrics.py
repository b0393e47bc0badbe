"""What validation measures besides the loss, and what tables call it. Of each, more is better."""

MEASURED = {"accuracy": "accuracy", "exact_match": "exact match", "f1": "F1", "matthews": "Matthews"}
