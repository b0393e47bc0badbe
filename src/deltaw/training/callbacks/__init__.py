"""What happens around an optimiser step, one callback in each file.

Their order matters: a checkpoint after step t finds everything up to t already recorded.
"""
