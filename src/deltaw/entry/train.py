"""Train LoRA arms side by side on one frozen base, leaving snapshots of their factors in a run directory.

deltaw train                                                  the bundled base and text, ranks 8 and 64
deltaw train model=hub model.path=Qwen/Qwen2.5-0.5B data=jsonl data.path=mine.jsonl trainer.devices=4
deltaw train -m 'arms.ranks=[8],[64]'                         a sweep: each job is a run of its own
torchrun --nproc-per-node=8 -m deltaw train arms.seeds=[0,1,2]
deltaw train plan=true model=gpt3 trainer.devices=64          what a run would take; nothing is loaded or started

In a clone, `python train.py` does the same.
"""

import gc

import hydra
from omegaconf import DictConfig

from deltaw import errors
from deltaw.commands.sweep import note_arguments, relaunch
from deltaw.config import schema
from deltaw.config.folder import CONF
from deltaw.config.help import help_asked, help_text


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def compose(cfg: DictConfig) -> None:
    """Compose the config; start the run, or one job of a sweep as a process of its own."""
    with errors.one_line_errors():
        if not relaunch():
            start(cfg)


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

        gc.enable()
        train(cfg)


def main() -> None:
    """`deltaw train`."""
    schema.register()
    if help_asked():
        print(help_text("train", __doc__))
        return
    note_arguments()
    errors.run(compose)


if __name__ == "__main__":
    main()
