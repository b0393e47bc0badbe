"""Train LoRA arms side by side on one frozen base, leaving snapshots of their factors in a run directory.

deltaw train                                                  the bundled base and text, ranks 8 and 64
deltaw train model=hub model.path=Qwen/Qwen2.5-0.5B data=jsonl data.path=mine.jsonl trainer.devices=4
deltaw train -m 'arms.ranks=[8],[64]'                         a sweep: each job is a run of its own
torchrun --nproc-per-node=8 -m deltaw train arms.seeds=[0,1,2]
deltaw train plan=true model=gpt3 trainer.devices=64          what a run would take; nothing is loaded or started

In a clone, `python train.py` does the same.
"""

import gc
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from deltaw import errors
from deltaw.commands.sweep import note_arguments, relaunch
from deltaw.config import schema
from deltaw.config.command_line import for_hydra
from deltaw.config.folder import CONF
from deltaw.config.help import help_asked, help_text
from deltaw.config.mistakes import check_complete, plain_words


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def compose(cfg: DictConfig) -> None:
    """Compose the config; start the run, or one job of a sweep as a process of its own."""
    with errors.one_line_errors(), plain_words(schema.TrainConfig):
        if not relaunch():
            check_complete(cfg, schema.TrainConfig)
            check_base(cfg, HydraConfig.get().runtime.choices["model"])
            start(cfg)


def check_base(cfg: DictConfig, choice: str) -> None:
    """Refuse another base with the settings of the bundled one.

    Args:
        cfg: the config.
        choice: of the group `model`.

    Raises:
        UserError: the choice is the bundled base, and model.path is not.
    """
    if choice == "bundled" != cfg.model.path:
        raise errors.UserError(
            f"model.path={cfg.model.path} needs model=hub: without it the settings are those of the bundled base, such "
            "as its learning rate"
        )


def start(cfg: DictConfig) -> None:
    """Load what the run needs, and run it."""
    gc.disable()  # while importing: collecting garbage costs a tenth of the start-up
    if cfg.plan:  # a plan needs no Lightning
        print("loading PyTorch and transformers", flush=True)
        from deltaw.commands.plan import plan_table

        print(plan_table(cfg))
    else:
        print("loading PyTorch Lightning, transformers and PEFT", flush=True)
        from deltaw.commands.train import train

        gc.freeze()  # modules stay to the end: searching them for cycles again and again takes a second and a half
        gc.enable()
        train(cfg)


def main() -> None:
    """`deltaw train`."""
    schema.register()
    if help_asked():
        print(help_text("train", __doc__))
        return
    errors.run(_compose_plainly)


def _compose_plainly() -> None:
    with plain_words(schema.TrainConfig):
        sys.argv[1:] = for_hydra(sys.argv[1:], schema.TrainConfig)
        note_arguments()
        compose()


if __name__ == "__main__":
    main()
