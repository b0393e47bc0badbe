"""Lock the run directory before anything is written to it, and leave none behind if the run does not start."""

from pytorch_lightning import Callback, LightningModule, Trainer

from deltaw.errors import UserError
from deltaw.run.record import RunRecord
from deltaw.run.writer import RunWriter


class OpenRun(Callback):
    """Lock the run directory: process 0 tries, and all processes go on or all stop.

    Args:
        writer: the run directory.
        step: the step that this process resumes training from; None for a start.
        engine: the engine that this process trains under.
        record: the content of `run.json`.
    """

    def __init__(self, writer: RunWriter, step: int | None, engine: str, record: RunRecord):
        self.writer, self.step, self.engine, self.record = writer, step, engine, record

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        step = self.step if stage == "fit" else trainer.max_steps  # the arms are judged after the last step
        mine = (step, self.engine, self.writer.config)
        same = trainer.strategy.broadcast(mine) == mine
        if not trainer.strategy.reduce_boolean_decision(same, all=True):
            raise UserError(
                f"process {trainer.global_rank} starts from step {step} under engine={self.engine}, and not all "
                "have the same step, engine and config: start them with the same command on one file system"
            )
        refusal = None
        if trainer.is_global_zero:
            try:
                self.writer.open(step, self.record)
            except UserError as error:
                refusal = str(error)
        if refusal := trainer.strategy.broadcast(refusal):
            raise UserError(refusal)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.writer.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.global_step == 0:
            self.writer.discard()
        self.writer.close()
