"""Compare two adapters: φ at every site, the paper's figure, and the findings in words.

deltaw analyze                                                the newest run, a small rank against its largest
deltaw analyze run=runs/x left=r8-s0 right=r64-s0 step=100
deltaw analyze left=path/to/adapter_r8 right=path/to/adapter_r64 output=some/dir

In a clone, `python analyze.py` does the same.
"""

import gc
import sys

import hydra
from omegaconf import DictConfig

from deltaw import errors
from deltaw.config import schema
from deltaw.config.command_line import for_hydra
from deltaw.config.folder import CONF
from deltaw.config.help import help_asked, help_text
from deltaw.config.mistakes import plain_words


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="analyze")
def compose(cfg: DictConfig) -> None:
    """Compose the config, load what the analysis needs, and run it."""
    with errors.one_line_errors(), plain_words(schema.AnalyzeConfig):
        print("loading PyTorch, pandas and matplotlib", flush=True)
        from deltaw.exhibit.picture import prepare

        prepare()
        from deltaw.commands.analyze import analyse

        gc.freeze()  # modules stay to the end: searching them for cycles at exit takes a third of a second
        analyse(cfg)


def main() -> None:
    """`deltaw analyze`."""
    schema.register()
    if help_asked():
        print(help_text("analyze", __doc__))
        return
    errors.run(_compose_plainly)


def _compose_plainly() -> None:
    with plain_words(schema.AnalyzeConfig):
        sys.argv[1:] = for_hydra(sys.argv[1:], schema.AnalyzeConfig)
        compose()


if __name__ == "__main__":
    main()
