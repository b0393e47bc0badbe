"""Compare two adapters: φ at every site, the paper's figure, and the findings in words.

python analyze.py                                        the newest run, its smallest rank against its largest
python analyze.py run=runs/x left=r8-s0 right=r64-s0 step=100
python analyze.py left=path/to/adapter_r8 right=path/to/adapter_r64 output=some/dir
"""

import gc

import hydra
from omegaconf import DictConfig

from deltaw import errors
from deltaw.config import schema


@hydra.main(version_base="1.3", config_path="conf", config_name="analyze")
def main(cfg: DictConfig) -> None:
    with errors.one_line_errors():
        print("loading PyTorch, pandas and matplotlib", flush=True)
        from deltaw.exhibit.picture import prepare

        prepare()
        from deltaw.commands.analyze import analyse

        gc.freeze()  # modules stay to the end: to search them for cycles, at exit above all, takes a third of a second
        analyse(cfg)


if __name__ == "__main__":
    schema.register()
    errors.run(main)
