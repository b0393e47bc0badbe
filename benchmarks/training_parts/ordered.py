"""The tokens of the examples in the order in which the arms of a seed learn them.

python -m training_parts.ordered FOLDER SEED    leaves FOLDER/train-sSEED.tokens.json
"""

import json
import sys
from pathlib import Path

import numpy as np

from deltaw.data.order import stratified


def main() -> None:
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    rows = json.loads((folder / "train.tokens.json").read_text())
    batch = json.loads((folder / "about.json").read_text())["batch"]
    lengths = np.array([len(row["input_ids"]) for row in rows], np.int32)
    order = stratified(lengths, batch, seed, epoch=0)
    (folder / f"train-s{seed}.tokens.json").write_text(json.dumps([rows[number] for number in order]))


if __name__ == "__main__":
    main()
