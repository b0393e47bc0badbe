"""The parts of `benchmarks/verify_advice.py`: what is trained, what is checked, and how it is told."""
