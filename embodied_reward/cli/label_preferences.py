"""Ask which of two episodes is better, on a web page of this machine, and keep every answer.

er label-preferences --dataset.root=data/demos                    pairs: which one is better?
er label-preferences --dataset.root=data/demos --mode=triplet     which one is closer to a third?
er label-preferences --dataset.root=data/demos --oracle --noise=0.1     the simulator answers
er label-preferences --dataset.root=data/demos --export=DIR       answers as a file about clips

Answers go to a JSONL file at once; the same command goes on where the last one stopped.
"""

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from embodied_reward.cli.command import run_verb
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.errors import ConfigError, DatasetError, did_you_mean

if TYPE_CHECKING:
    from embodied_reward.data import EpisodeSequence
    from embodied_reward.labelling.journal import Journal
    from embodied_reward.labelling.queries import Query
    from embodied_reward.labelling.rows import Asked
    from embodied_reward.labelling.session import Session

STRATEGIES = ("random", "disagreement")


@dataclass(frozen=True)
class EnsemblePath:
    """Which trained ensemble."""

    path: str | None = None
    """an ensemble of `er train-reward --reward_model.type=ensemble`, for --strategy=disagreement"""


@dataclass(frozen=True)
class LabelConfig:
    """Everything `er label-preferences` can be told."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    reward_model: EnsemblePath = field(default_factory=EnsemblePath)
    output: str | None = None
    """JSONL file of the answers; default: outputs/label-preferences/NAME/preferences.jsonl"""
    mode: str = "pair"
    """pair (which one is better?) or triplet (which one is closer to the anchor?)"""
    count: int = 100
    """answers to reach, those of earlier sittings included; skipped questions do not count"""
    seed: int = 0
    """seed of the choice of questions and of the oracle's mistakes"""
    strategy: str = "random"
    """random, or disagreement: what an ensemble disputes most comes first (pairs only)"""
    pool: int = 500
    """random questions among which --strategy=disagreement chooses"""
    port: int = 0
    """port of the page on this machine; 0 takes a free one"""
    side: int = 256
    """longer side of a picture on the page, at most [px]"""
    frames: int = 150
    """pictures per clip on the page, at most; longer episodes are thinned evenly"""
    oracle: str = ""
    """progress, mean_progress or success: the simulator answers; --oracle alone takes progress"""
    noise: float = 0.0
    """share of the oracle's answers that are turned round, in [0, 1]"""
    margin: float = 0.01
    """differences up to this are "same" to the oracle"""
    export: str | None = None
    """folder to make: the answers as clips and a file that preference heads read"""
    export_as: str = "mp4"
    """mp4 (every frame) or png (eight lossless pictures per clip)"""


def main(argv: list[str]) -> int:
    """Entry point of `er label-preferences`."""
    return run_verb("label-preferences", LabelConfig, label, with_oracle(argv), __doc__)


def with_oracle(argv: list[str]) -> list[str]:
    """Read `--oracle` without a value as `--oracle=progress`."""
    following = [*argv[1:], "--"]
    return [
        "--oracle=progress" if word == "--oracle" and after.startswith("--") else word
        for word, after in zip(argv, following, strict=True)
    ]


def label(config: LabelConfig) -> int:
    """Ask, or let the oracle answer, or export; returns the exit status.

    Raises:
        ConfigError: a value out of range.
        DatasetError: a dataset that cannot be compared or shown, or a file that is no journal.
    """
    _check(config)
    episodes = config.dataset.open()
    path = output_path(config)
    done = True
    if config.oracle or not config.export:
        done = _answer(config, episodes, path)
    if config.export:
        _export(config, episodes, path)
    return 0 if done else 130


def output_path(config: LabelConfig) -> Path:
    """Return the file of the answers."""
    if config.output:
        return Path(config.output)
    name = "+".join(Path(part).name for part in dataset_name(config).split(","))
    return Path("outputs/label-preferences") / name / "preferences.jsonl"


def dataset_name(config: LabelConfig) -> str:
    """Return the dataset's name in the rows: as given, without `./` and a last slash."""
    return ",".join(os.path.normpath(part) for part in config.dataset.label().split(","))


def _check(config: LabelConfig) -> None:
    from embodied_reward.labelling.queries import KINDS

    for name, known in (("mode", KINDS), ("strategy", STRATEGIES)):
        value = getattr(config, name)
        if value not in known:
            raise ConfigError(f"unknown --{name}={value}; {did_you_mean(value, known)}")
    for name, least in (("count", 1), ("pool", 1), ("side", 16), ("frames", 2)):
        if getattr(config, name) < least:
            raise ConfigError(f"--{name} must be at least {least}, got {getattr(config, name)}")
    if not 0 <= config.port <= 65535:
        raise ConfigError(f"--port must be between 0 and 65535, got {config.port}")
    if not config.oracle and config.noise:
        raise ConfigError("--noise is the oracle's; add --oracle")
    _check_strategy(config)


def _check_strategy(config: LabelConfig) -> None:
    disputed = config.strategy == "disagreement"
    if disputed and config.mode != "pair":
        raise ConfigError("--strategy=disagreement is about pairs; use --mode=pair")
    if disputed != bool(config.reward_model.path):
        raise ConfigError(
            "--strategy=disagreement and --reward_model.path=ENSEMBLE need each other; train one "
            "with 'er train-reward --reward_model.type=ensemble'"
        )


def _answer(config: LabelConfig, episodes: "EpisodeSequence", path: Path) -> bool:
    """Fill the journal; returns whether all that was asked for is there."""
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.labelling.journal import Journal
    from embodied_reward.labelling.session import Session

    queries = _queries(config, episodes)
    if not episodes.views and not config.oracle:
        raise DatasetError(f"'{episodes.root}' has no camera view to show; record one with cameras")
    oracle = _oracle(config, episodes)
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(Journal(path))
        progress = progress_bar()
        bar = progress.add_task("answers", total=config.count)
        session = Session(
            journal,
            queries,
            dataset=dataset_name(config),
            tasks=dict(zip(episodes.indices, episodes.episode_tasks, strict=True)),
            kind=config.mode,
            target=config.count,
            source="oracle" if oracle else "person",
            on_change=lambda answered: progress.update(bar, completed=answered),
        )
        _say_what_is_there(journal, session)
        progress.update(bar, completed=session.answered)
        if oracle:
            from embodied_reward.labelling.oracle import answer_all

            with progress:
                answer_all(session, oracle)
        else:
            _serve(config, episodes, session, progress)
        _summary(config, session, path)
        return session.answered >= config.count or session.current is None


def _queries(config: LabelConfig, episodes: "EpisodeSequence") -> "Iterator[Query]":
    from embodied_reward.labelling.queries import most_disputed, random_queries

    tasks = list(zip(episodes.indices, episodes.episode_tasks, strict=True))
    queries = random_queries(tasks, config.mode, config.seed)
    if config.strategy == "random":
        return queries
    from embodied_reward.cli.label_disagreement import disagreement

    assert config.reward_model.path is not None
    return most_disputed(queries, disagreement(config.reward_model.path, episodes), config.pool)


def _oracle(config: LabelConfig, episodes: "EpisodeSequence"):  # noqa: ANN202
    from embodied_reward.labelling.oracle import Oracle, utilities

    if not config.oracle:
        return None
    return Oracle(
        utilities(episodes, config.oracle),
        noise=config.noise,
        margin=config.margin,
        seed=config.seed,
    )


def _say_what_is_there(journal: "Journal", session: "Session") -> None:
    if journal.torn:
        print(f"an unfinished last line of '{journal.path}' ({journal.torn} bytes) was cut off")
    own = session.answered + session.skipped
    if journal.rows:
        print(
            f"'{journal.path}' holds {own} answers and skips of this dataset and mode, and "
            f"{len(journal.rows) - own} others"
        )


def _serve(config: LabelConfig, episodes: "EpisodeSequence", session: "Session", progress) -> None:  # noqa: ANN001
    from embodied_reward.labelling.clips import ClipStore
    from embodied_reward.labelling.server import LabelServer

    clips = ClipStore(episodes, side=config.side, frames=config.frames)
    with LabelServer(session, clips, port=config.port) as server:
        print(f"open this address in a browser on this machine:\n  {server.url}", flush=True)
        print("Ctrl-C ends it; every answer is on the disk at once.", flush=True)
        with contextlib.suppress(KeyboardInterrupt), progress:
            # In short waits, because a signal may reach another thread, which wakes nobody.
            while not server.finished.wait(0.5):
                pass


def _summary(config: LabelConfig, session: "Session", path: Path) -> None:
    state = session.state()
    print(f"{state['answered']} answers, {state['skipped']} skipped: {path}")
    if state["exhausted"]:
        print(f"there are no more questions; {config.count} were asked for")
    elif state["answered"] < config.count:
        print("go on later with the same command")
    clips = shlex.quote(str(path.with_name(f"{path.stem}_clips")))
    source, answers = shlex.quote(config.dataset.label()), shlex.quote(str(path))
    print(
        f"next:\n  er train-reward --dataset.root={source} --reward_model.type=rapl "
        f"--preferences={answers}\n  er label-preferences --dataset.root={source} "
        f"--output={answers} --export={clips}\n  er train-scorer --data={clips}/preferences.jsonl"
    )


def _export(config: LabelConfig, episodes: "EpisodeSequence", path: Path) -> None:
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.labelling.export import export

    assert config.export is not None
    answers = _answers(config, path)
    used = {e for a in answers if not a.skipped for e in a.query.episodes}
    with progress_bar() as progress:
        bar = progress.add_task("clips", total=len(used))
        count = export(
            episodes,
            answers,
            config.export,
            form=config.export_as,
            on_clip=lambda done: progress.update(bar, completed=done),
        )
    print(
        f"{count} judgements about {len(used)} clips: {Path(config.export) / 'preferences.jsonl'}"
    )


def _answers(config: LabelConfig, path: Path) -> "list[Asked]":
    """Return the answers of this dataset and mode. Raises DatasetError: there is no file."""
    from embodied_reward.labelling.journal import Journal
    from embodied_reward.labelling.rows import read_answer

    if not path.is_file():
        raise DatasetError(f"there is no '{path}' to export; answer first, or give --output=FILE")
    with Journal(path) as journal:
        answers = [read_answer(row) for row in journal.rows]
    name = dataset_name(config)
    return [a for a in answers if a.dataset == name and a.query.kind == config.mode]
