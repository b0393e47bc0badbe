"""FLOPs a second of a square matrix product on all cores, the most that training can reach.

python -m training_parts.rate float32|bfloat16 OUT.json
"""

import json
import sys
import time
from pathlib import Path

import torch

WIDTH = 1536
SECONDS = 2  # of measuring, the fastest product counts


def main() -> None:
    one, other = (torch.randn(WIDTH, WIDTH).to(getattr(torch, sys.argv[1])) for _ in range(2))
    took, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter()
        one @ other
        took.append(time.perf_counter() - started)
    Path(sys.argv[2]).write_text(json.dumps(2 * WIDTH**3 / min(took)))


if __name__ == "__main__":
    main()
