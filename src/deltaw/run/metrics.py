"""What validation reports beside the loss."""

# Metrics, with their titles in tables. For each, more is better.
MEASURED = {"accuracy": "accuracy", "exact_match": "exact match", "f1": "F1", "matthews": "Matthews"}

# Columns of metrics.csv with their types: the arm is missing where a value concerns all arms.
COLUMNS_OF_METRICS = {"step": "int64", "arm": "str", "name": "str", "value": "float64"}

# Parts of the held-out examples: those to choose an arm by, and those to say by what it reaches.
VALIDATION, JUDGED = "validation", "judged"

# Columns of evaluation.parquet, which has a row per arm, step, split, cut, what was dropped, and held-out example, with
# their types.
COLUMNS_OF_EVALUATION = {
    "arm": "str",
    "step": "int64",  # optimiser steps that the arm has taken; at 0 it is the base
    "split": "str",  # validation or judged
    "cut": "Int64",  # k where ΔW of every site is its best approximation of rank k; missing where it is not cut
    "dropped": "str",  # the sites without ΔW, as "q of layer 3", "q" or "layers 1 to 3"; "" for none
    "example": "int64",  # its number in the data set
    "group": "int64",  # the number of its group: of one value of data.group, or its own
    "loss": "float64",  # in nats, summed over the labels
    "labels": "int64",
    "right": "int64",  # labels that the arm predicts
}
