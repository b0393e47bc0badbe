"""deltaw train, deltaw analyze and deltaw fold: the command line of an installed deltaw."""

import runpy
import sys

from deltaw import __version__

COMMANDS = {
    "train": ("deltaw.entry.train", "train LoRA at several ranks over one frozen base"),
    "analyze": ("deltaw.entry.analyze", "compare two adapters, or two arms of a run"),
    "fold": ("deltaw.commands.fold", "make a snapshot on split layers fit the model as PEFT loads it"),
}


def main() -> None:
    """Run the command as the main module, so that Lightning and torchrun can start it again in other processes."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("\n".join(["usage: deltaw COMMAND …\n", *(f"  {key:<9}{about}" for key, (_, about) in COMMANDS.items())]))
        print("\ndeltaw COMMAND --help explains one of them.")
        return
    if name == "--version":
        print(f"deltaw {__version__}")
        return
    if name not in COMMANDS:
        sys.exit(f"error: deltaw has no command {name!r}: give one of {', '.join(COMMANDS)}")
    del sys.argv[1]
    runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
