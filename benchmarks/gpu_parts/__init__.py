"""The parts of `benchmarks/gpu.py`: each a function of OUT and `Sizes` that leaves its results there as they come."""
