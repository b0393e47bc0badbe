"""What a user types: `deltaw train` and `deltaw analyze`, which are also `train.py` and `analyze.py`."""
