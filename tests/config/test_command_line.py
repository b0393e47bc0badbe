"""The command line: values as a user types them reach the config, and mistakes are told with the way on."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from deltaw.config.command_line import for_hydra
from deltaw.config.folder import CONF
from deltaw.config.mistakes import check_complete, plain_words
from deltaw.config.schema import AnalyzeConfig, TrainConfig, register
from deltaw.errors import UserError

register()


def value(key: str, *words: str, config: type = TrainConfig) -> object:
    """The value of a key under a command line."""
    command = "train" if config is TrainConfig else "analyze"
    with plain_words(config), initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(command, for_hydra(words, config)))[key]  # type: ignore[call-overload, index]


def mistake(*words: str, config: type = TrainConfig) -> str:
    """What the user is told about a command line."""
    command = "train" if config is TrainConfig else "analyze"
    with pytest.raises(UserError) as error, plain_words(config):  # noqa: SIM117
        with initialize_config_dir(str(CONF), version_base="1.3"):
            check_complete(compose(command, for_hydra(words, config)), config)
    assert "\n" not in str(error.value) and "hydra.cc" not in str(error.value)
    return str(error.value)


PATHS = [
    *(
        "rank=8,alpha=16/checkpoint-500",
        "my adapter (v2)",
        "user@host",
        "[a]",
        "{b: c}",
        "it's",
        '"quoted" text',
        "a~b",
    ),
    *(
        "café/Δ 模型",
        "a\\",
        "C:\\models\\x",
        "50%",
        "a#b",
        "a;b|c&d",
        "$x",
        "!",
        "-x",
        "=",
        "null.json",
        "1e3",
        "007",
        "on",
    ),
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_taken_as_it_is_typed(path: str) -> None:
    assert value("left", f"left={path}", config=AnalyzeConfig) == path


@pytest.mark.parametrize("path", PATHS)
def test_a_run_is_a_path_or_a_list_of_paths(path: str) -> None:
    several = [path, "runs/b"]
    if not any(sign in path for sign in ",[\"'"):  # in a list, these need quotes
        assert value("run", f"run={path}", config=AnalyzeConfig) == path
        assert value("run", f"run={path},runs/b", config=AnalyzeConfig) == several
        assert value("run", f"run=[{path}, runs/b]", config=AnalyzeConfig) == several


def test_a_run_whose_path_looks_like_a_list_is_found_where_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("rank=8,alpha=16", "[a]"):
        assert value("run", f"run={path}", config=AnalyzeConfig) != path
        Path(path).mkdir()
        assert value("run", f"run={path}", config=AnalyzeConfig) == path
    assert value("run", "run=[runs/a,'b,c']", config=AnalyzeConfig) == ["runs/a", "b,c"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_quoted_so_that_hydra_reads_it_back(text: str) -> None:
    (override,) = for_hydra([f"left=x{text}"], AnalyzeConfig)
    assert OverridesParser.create().parse_override(override).value() == f"x{text}"


def test_home_null_quotes_and_interpolations_keep_their_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    assert value("left", "left=~/adapter", config=AnalyzeConfig) == "/home/me/adapter"
    assert value("left", "left=null", config=AnalyzeConfig) is None
    assert value("left", "left='a=b'", config=AnalyzeConfig) == "a=b"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("analyze", for_hydra(["left=${oc.env:DATA}/x"], AnalyzeConfig)).left == "/data/x"


@pytest.mark.parametrize(
    ("word", "override"),
    [
        ("arms.ranks=8", "arms.ranks=[8]"),
        ("arms.ranks=8,64", "arms.ranks=[8,64]"),
        ("arms.ranks=[8,64]", "arms.ranks=[8,64]"),
        ("arms.ranks=null", "arms.ranks=null"),
        ("arms.projections=q,v", "arms.projections=[q,v]"),
        ("arms.projections=all-linear", "arms.projections=all-linear"),
        ("trainer.devices=0,1", "trainer.devices=[0,1]"),
        ("trainer.devices=2", "trainer.devices=2"),
        ("data.text=premise,hypothesis", "data.text=[premise,hypothesis]"),
        ("data.text={a}: {b}", 'data.text="{a}: {b}"'),
        ("data.prompt={question} | {table}", 'data.prompt="{question} | {table}"'),
        ("data.split=train[:10%]", 'data.split="train[:10%]"'),
        ("+arms.ranks=[4]", "arms.ranks=[4]"),
        ("+experiment=smoke", "experiment=smoke"),
        ("+logger.entity=me", "+logger.entity=me"),
        ("arms.list=[{rank: 8}]", "arms.list=[{rank: 8}]"),
        ("hydra/launcher=basic", "hydra/launcher=basic"),
        ("~logger", "~logger"),
    ],
)
def test_one_value_is_a_list_of_one_and_a_comma_makes_more(word: str, override: str) -> None:
    assert for_hydra([word], TrainConfig) == [override]


@pytest.mark.parametrize(
    ("word", "override"),
    [
        ("model.path=gpt2,facebook/opt-125m", "model.path=gpt2,facebook/opt-125m"),
        ("data.path=a=1.jsonl,b=2.jsonl", 'data.path="a=1.jsonl","b=2.jsonl"'),
        ("arms.ranks=8,64", "arms.ranks=[8],[64]"),
        ("arms.ranks=[8],[64]", "arms.ranks=[8],[64]"),
        ("arms.alpha=range(1,4)", "arms.alpha=range(1,4)"),
        ("model=hub,bundled", "model=hub,bundled"),
    ],
)
def test_a_comma_separates_the_jobs_of_a_sweep(word: str, override: str) -> None:
    assert for_hydra(["-m", word], TrainConfig) == ["-m", override]


def test_flags_may_stand_anywhere() -> None:
    words = ["optim.lr=1", "-m", "arms.ranks=[8],[64]", "--config-dir", "x"]
    assert for_hydra(words, TrainConfig) == ["-m", "--config-dir", "x", "optim.lr=1", "arms.ranks=[8],[64]"]


def test_keys_and_groups_of_the_users_own_folder_are_known(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    words = [f"--config-dir={tmp_path}", "+own=x"]
    assert for_hydra(words, TrainConfig) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("arms.rnks=[8]", "arms.rnks is no key: did you mean arms.ranks?"),
        ("armz.ranks=[8]", "did you mean arms.ranks?"),
        ("rank=8", "rank is no key: did you mean arms.ranks?"),
        ("lr=0.1", "lr is no key: did you mean model.lr or optim.lr?"),
        ("modell=hub", "did you mean model?"),
        ("+foo=1", "foo is no key"),
        ("optim.lr.x=1", "did you mean optim.lr?"),
        ("model=hubb", "model=hubb: did you mean hub? choose from bundled, deep96, gpt3, hub"),
        ("experiment=section8", "experiment=section8: did you mean section7?"),
        ("logger=nothing", "logger=nothing: choose from mlflow, tensorboard, wandb"),
        ("hydra/launcher=submitit_slurm", "or install the plugin that has it"),
        ("arms.ranks=eight", "arms.ranks[0]=eight: give a list of whole numbers, as [1,2]"),
        ("trainer.max_steps=ten", "trainer.max_steps=ten: give a whole number, 1 or more (length of the run"),
        ("trainer.max_steps=1.5", "trainer.max_steps=1.5: give a whole number"),
        ("trainer.max_steps=null", "trainer.max_steps=null: give a whole number"),
        ("trainer.max_steps=", "trainer.max_steps=: give a whole number"),
        ("plan=maybe", "plan=maybe: give true or false"),
        ("optim=adam", "optim=adam: give its keys one by one"),
        ("data.path=", "data.path= is empty: leave it out, or give a value"),
        ("model.path=", "model.path= is empty: leave it out, or give a value"),
        ("run.dir=", "run.dir= is empty: leave it out, or give a value"),
        ("trainer.max_steps=1,2", "trainer.max_steps=1,2 gives several values: add -m"),
        (
            "model.path=gpt2,facebook/opt-125m",
            "there is no 'gpt2,facebook/opt-125m'; if these are several values, add -m",
        ),
        ("~data", "~data would remove data, which a run needs: leave ~data out"),
        ("smoke", "smoke is no setting: give key=value without spaces, as experiment=smoke"),
        ("model/hub", "as model=hub"),
        ("arms.ranks:[8]", "as arms.ranks=[8]"),
        ("arms.ranks = [8]", "as arms.ranks=[8]"),
        ("arms.ranks=[8, 64]", "the shell cuts it at a space; type 'arms.ranks=[8,64]'"),
        ("arms.ranks=[ 8 64 ]", "the shell cuts it at a space; type 'arms.ranks=[ 8,64 ]'"),
        ("arms.ranks=8 64 128", "64 is no setting: if it belongs to arms.ranks=8, type arms.ranks=8,64,128"),
        ("arms.ranks=8, 64", "type arms.ranks=8,64"),
        ("trainer.devices=0 1", "type trainer.devices=0,1"),
        ("-m optim.lr=0.1 0.2", "type optim.lr=0.1,0.2"),
        ("-m arms.ranks=[8] [64]", "type 'arms.ranks=[8],[64]'"),
        ("data.text=Review Text", "type 'data.text=Review Text'"),
        ("arms.list=[{rank: 8}, {rank: 4}]", "type 'arms.list=[{rank: 8}, {rank: 4}]'"),
        (f"data.path={','.join(f'part{n}.jsonl' for n in range(99))}", "…"),
        ("run.name=my run", "run is no setting: if it belongs to run.name=my, type 'run.name=my run'"),
        ("hydra.x=(", "hydra.x=( cannot be read: put the value in quotes, as "),
        ("--ranks=8", "settings have no dashes: give ranks=8"),
        ("--cfg=all-of-it", "argument --cfg/-c: invalid choice"),
        ("--config-dir=a --config-dir=b", "--config-dir is given twice"),
        ("model=hub", "model.path is missing: give model.path=… (a local folder"),
    ],
)
def test_a_mistake_is_told_with_the_way_on(line: str, words: str) -> None:
    assert words in mistake(*line.split(" "))


def test_a_path_without_a_key_is_not_taken_for_one() -> None:
    assert mistake("runs/two").endswith("runs/two is no setting: give key=value without spaces")


def test_a_mistake_in_a_file_is_told_as_one_on_the_command_line(tmp_path: Path) -> None:
    def of_file(text: str) -> str:
        (tmp_path / "train.yaml").write_text(
            f"defaults: [train_schema, _self_, {{override hydra/job_logging: none}}]\n{text}"
        )
        with pytest.raises(UserError) as error, plain_words(TrainConfig):  # noqa: SIM117
            with initialize_config_dir(str(tmp_path), version_base="1.3"):
                _ = compose("train").run.name
        return str(error.value)

    assert "arms.rnks is no key: did you mean arms.ranks? (--help lists all keys) (in train.yaml)" in of_file(
        "arms: {rnks: [8]}"
    )
    assert "trainer.max_steps=ten: give a whole number" in of_file("trainer: {max_steps: ten}")
    assert "run.name: Interpolation key 'nope' not found" in of_file("run: {name: '${nope}'}")
    assert "a config file is no YAML" in of_file("arms: [")


def test_an_error_of_a_class_that_the_config_names_keeps_its_words() -> None:
    with pytest.raises(UserError, match=r"^x\.jsonl is no file$"), plain_words(TrainConfig):
        instantiate({"_target_": f"{__name__}.refuse"})
    with pytest.raises(UserError, match=r"'no\.such\.Logger'.*No module named 'no'"), plain_words(TrainConfig):
        instantiate({"_target_": "no.such.Logger"})


def refuse() -> None:
    raise UserError("x.jsonl is no file")


def test_the_end_of_a_runs_name_may_be_empty() -> None:
    assert value("run", "run.suffix=")["suffix"] == ""  # type: ignore[index]
