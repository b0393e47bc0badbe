"""The parts of `benchmarks/training.py`: workloads, the processes that train and measure, and what their files say."""
