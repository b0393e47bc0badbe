"""What validation reports beside the loss."""

# Metrics, with their titles in tables. For each, more is better.
MEASURED = {"accuracy": "accuracy", "exact_match": "exact match", "f1": "F1", "matthews": "Matthews"}

# Columns of metrics.csv with their types: the arm is missing where a value concerns all arms.
COLUMNS_OF_METRICS = {"step": "int64", "arm": "str", "name": "str", "value": "float64"}

# Columns of evaluation.parquet, which has a row per step, arm and held-out example, with their types: loss is in nats,
# summed over the example's labels; labels and right count them and the rightly predicted ones.
COLUMNS_OF_EVALUATION = {
    "arm": "str",
    "step": "int64",
    "example": "int64",
    "loss": "float64",
    "labels": "int64",
    "right": "int64",
}
