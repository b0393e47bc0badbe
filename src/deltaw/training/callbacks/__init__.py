"""What happens before, between and after the optimiser steps; one callback per file.

Their order matters: everything up to step t is recorded before the checkpoint of step t.
"""
