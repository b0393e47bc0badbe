"""Train LoRA arms side by side on one frozen base, leaving snapshots of their factors in a run directory.

python train.py                                               the bundled base and text, ranks 8 and 64
python train.py model=hub model.path=Qwen/Qwen2.5-0.5B data=jsonl data.path=mine.jsonl trainer.devices=4
python train.py -m 'arms.ranks=[8],[64]'                       a sweep: every job a run of its own
torchrun --nproc-per-node=8 train.py arms.seeds=[0,1,2]
python train.py plan=true model=gpt3 trainer.devices=64         what a run would take; nothing is loaded or started
"""

import gc

import hydra
from omegaconf import DictConfig

from deltaw import errors
from deltaw.commands.sweep import note_arguments, relaunch
from deltaw.config import schema


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    with errors.one_line_errors():
        if not relaunch(__file__):
            start(cfg)


def start(cfg: DictConfig) -> None:
    gc.disable()  # what is loaded stays: to search it for cycles over and over takes a tenth of the time
    if cfg.plan:  # for which Lightning would be loaded in vain
        print("loading PyTorch and transformers", flush=True)
        from deltaw.commands.plan import planned

        print(planned(cfg))
    else:
        print("loading PyTorch Lightning, transformers and PEFT", flush=True)
        from deltaw.commands.train import train

        gc.enable()
        train(cfg)


if __name__ == "__main__":
    schema.register()
    note_arguments()
    errors.run(main)
