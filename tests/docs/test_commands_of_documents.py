"""What README and docs tell a user to type is accepted, and every link leads somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from deltaw.__main__ import COMMANDS
from deltaw.config.command_line import for_hydra
from deltaw.config.folder import CONF
from deltaw.config.schema import AnalyzeConfig, TrainConfig, register
from tests.support.tiny import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FLAGS = ("-m", "--help", "hydra")  # what is Hydra's, and not a key of ours


def commands() -> list[tuple[str, list[str]]]:
    """Each `deltaw …` in a block of code: the command, and its words."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"^```\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                if match := re.search(r"\bdeltaw (train|analyze|fold)\b(.*)", line):
                    words = shlex.split(re.split(r"\s{3,}", match[2])[0], comments=True)
                    found.append((match[1], words))
    return found


def test_documents_have_commands() -> None:
    assert len(commands()) > 20 and {command for command, _ in commands()} == COMMANDS.keys()


@pytest.mark.parametrize(("command", "words"), [case for case in commands() if case[0] != "fold"])
def test_a_command_of_the_documents_composes(command: str, words: list[str]) -> None:
    register()
    swept = "-m" in words
    overrides = [word for word in words if not word.startswith(FLAGS)]
    if swept:  # the first job of a sweep
        overrides = [re.sub(r"=(\[[^\]]*\]),.*", r"=\1", word) for word in overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose(command, for_hydra(overrides, AnalyzeConfig if command == "analyze" else TrainConfig))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r'src="([^":]+)"', text)
    assert not [link for link in links if not (document.parent / link).exists()]
