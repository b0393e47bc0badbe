"""`--help`: the keys of a command with their comments and defaults, as the shipped YAML has them."""

import sys

from deltaw.config.folder import CONF

HYDRAS = {"defaults", "hydra"}  # blocks of the YAML that are about Hydra alone
FLAGS = """key=value changes a key; arms.ranks=8,64 is short for arms.ranks=[8,64];
-m runs a job for each of several values, as arms.ranks=[8],[64];
--config-dir=DIR adds configs of your own; --cfg job prints the config and starts nothing;
--hydra-help is Hydra's own help, with shell completion."""
SHOWN = ("jsonl", "hub")  # the choices whose keys a newcomer sets


def help_asked() -> bool:
    """Whether the command line asks for our help; `--hydra-help` is Hydra's own."""
    return "--help" in sys.argv[1:] or "-h" in sys.argv[1:]


def help_text(command: str, usage: str) -> str:
    """How to call a command, every key with its comment and default, and the choices of each config group."""
    parts = [usage.strip(), "Keys, with their defaults:", _without_hydra((CONF / f"{command}.yaml").read_text("utf-8"))]
    if command == "train":
        for group in sorted(folder for folder in CONF.iterdir() if folder.is_dir()):
            names = sorted(file.stem for file in group.glob("*.yaml"))
            parts.append(f"{group.name}= chooses one of: {', '.join(names)}")
            parts += [_group(group.name, name) for name in SHOWN if name in names]
    parts.append(FLAGS)
    return "\n\n".join(parts)


def _without_hydra(text: str) -> str:
    """The YAML without the blocks that are Hydra's."""
    kept, hydras = [], False
    for line in text.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            hydras = line.partition(":")[0] in HYDRAS
        if not hydras:
            kept.append(line)
    return "\n".join(kept).strip()


def _group(group: str, name: str) -> str:
    """The keys that a choice of a group has."""
    lines = _without_hydra((CONF / group / f"{name}.yaml").read_text("utf-8")).splitlines()
    return "\n".join([f"{group}: # with {group}={name}", *(f"  {line}" for line in lines)])
