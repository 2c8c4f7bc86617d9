"""Score pictures and clips with any scorer.

er score images/ --scorer=RUN_OR_MODEL --text="a red cube on a plate"
er score clip.mp4 --scorer=openai/clip-vit-base-patch32 --text="the drawer is open" --window=1
er score a.png b.png --scorer=judge.yaml --text=... --output=scores.jsonl
er score clip.mp4 --scorer=RUN_OF_TRAIN_REWARD --plot=progress.png
er score clip.mp4 --scorer=RUN_OF_TRAIN_REWARD --saliency=normgrad --saliency_dir=looks/

A scorer is: a run of `er train-scorer`; a folder of save_pretrained or a hub id (owner/name@commit)
of a CLIP-, SigLIP- or DINO-class model; a YAML file of an engine or language model
(docs/language_scorers.md); a running `er serve` (http://host:port#name); or a robot's reward model
of `er train-reward`, which scores every frame of a clip. Files that cannot be read, and items that
cannot be scored, are rows with a status and no number. --saliency draws where the scorer looks
(docs/saliency.md).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embodied_reward.cli.command import run_verb
from embodied_reward.errors import ConfigError

if TYPE_CHECKING:
    from embodied_reward.cli.score_inputs import Block, Item
    from embodied_reward.cli.score_output import Row
    from embodied_reward.cli.score_saliency import Looks
    from embodied_reward.scoring import ScoreBatch, ScoreRequest
    from embodied_reward.scoring.trl import Source
    from embodied_reward.types import UInt8


@dataclass(frozen=True)
class ScoreConfig:
    """Everything `er score` can be told beside the files."""

    scorer: str = ""
    """what scores: folder, YAML file, hub id, or http://host:port#name"""
    text: str = ""
    """text for every item: a prompt, or the task in words"""
    texts: str = ""
    """JSON file: name of a file -> its text"""
    reference: str = ""
    """picture that every item is compared with"""
    window: int = 0
    """frames of a sliding window over a clip; 0 gives a clip one score"""
    stride: int = 1
    """frames from one window to the next"""
    frames: int = 8
    """frames taken of a whole clip, evenly spread"""
    view: tuple[str, ...] = ()
    """clips of a robot's cameras: name=clip.mp4,name2=clip2.mp4"""
    output: str = ""
    """file for all rows: .jsonl, .csv or .parquet"""
    plot: str = ""
    """PNG of the scores over time"""
    saliency: str = ""
    """draw where it looks: normgrad, lrp (conv encoders) or attention (transformers)"""
    saliency_layers: tuple[str, ...] = ()
    """layers of normgrad; default: the last one at each resolution from 8 x 8 cells on"""
    saliency_regions: int = 0
    """paint the map by about so many regions of one colour; 0 by pixels"""
    saliency_dir: str = "outputs/saliency"
    """folder of the pictures and videos that --saliency draws"""
    mode: Literal["tolerance", "strict"] = "tolerance"
    """strict: scores are bit-equal whatever is scored beside them"""
    timeout: float = 3600.0
    """seconds for one block of up to 256 frames [s]"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""


def main(argv: list[str]) -> int:
    """Entry point of `er score`."""
    paths, rest = split_paths(argv)
    return run_verb("score", ScoreConfig, lambda config: score(paths, config), rest, __doc__)


def split_paths(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return the files among the words, and the options; `--key value` keeps its value."""
    paths, rest, takes = [], [], False
    for word in argv:
        option = word.startswith("-")
        (rest if option or takes else paths).append(word)
        takes = option and "=" not in word and word not in ("-h", "--help")
    return paths, rest


def score(paths: list[str], config: ScoreConfig) -> int:
    """Score, print a table, write what was asked for. Returns 1 if nothing could be scored."""
    from embodied_reward.cli import score_output
    from embodied_reward.cli.score_inputs import Windows
    from embodied_reward.cli.train_reward import pick_device
    from embodied_reward.training.seeding import set_threads

    score_output.check_output(config.output)
    Windows(config.window, config.stride, config.frames)
    looks = _looks(config)
    if config.plot and Path(config.plot).suffix != ".png":
        raise ConfigError(f"--plot={config.plot}: give a file that ends in .png")
    if not config.scorer:
        raise ConfigError("give a scorer: --scorer=FOLDER, FILE, HUB_ID or http://host:port#name")
    if not paths and not config.view:
        raise ConfigError("give files or folders: er score images/ --scorer=...")
    set_threads(config.threads)
    device = str(pick_device(config.device))
    rows, thumbs, label = _rows(paths, config, device, looks)
    print(score_output.table(rows))
    if config.output:
        score_output.write_rows(rows, Path(config.output))
        print(f"scores: {config.output}")
    if config.plot:
        from embodied_reward.cli.score_plot import plot_clips

        plot_clips(rows, thumbs, Path(config.plot), label)
        print(f"plot: {config.plot}")
    if looks:
        print(looks.said())
    return 0 if any(row.ok for row in rows) else 1


Thumbs = dict[str, list[tuple[float, "UInt8"]]]


def _looks(config: ScoreConfig) -> "Looks | None":
    if not config.saliency:
        if config.saliency_layers or config.saliency_regions:
            raise ConfigError("--saliency_layers and --saliency_regions need --saliency=METHOD")
        return None
    if config.scorer.startswith(("http://", "https://")):
        raise ConfigError(
            "--saliency needs the scorer's gradient, which no server gives: name the folder or "
            "model itself with --scorer"
        )
    from embodied_reward.cli.score_saliency import Looks
    from embodied_reward.vision.saliency import SaliencyOptions

    if config.saliency_regions < 0:
        raise ConfigError(f"--saliency_regions={config.saliency_regions}: must not be negative")
    options = SaliencyOptions(config.saliency, config.saliency_layers)
    return Looks(options, Path(config.saliency_dir), config.saliency_regions)


def _rows(
    paths: list[str], config: ScoreConfig, device: str, looks: "Looks | None"
) -> tuple[list["Row"], Thumbs, str]:
    from embodied_reward.cli.score_robot import load_robot_model

    model = load_robot_model(config.scorer, device)
    if model is not None:
        return _robot_rows(model, paths, config, looks)
    if config.view:
        raise ConfigError(f"--view is for reward models of robots; '{config.scorer}' is none")
    with _source(config, device) as (source, name):
        if looks:
            looks.check(source, name, config.text)
        rows, thumbs = _score_blocks(source, name, paths, config)
        if looks:
            looks.of_files(source, name, rows, text_of=_text_of(config), reference=config.reference)
    return rows, thumbs, name


def _robot_rows(
    model: Any, paths: list[str], config: ScoreConfig, looks: "Looks | None"
) -> tuple[list["Row"], Thumbs, str]:
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.cli.score_inputs import find_files
    from embodied_reward.cli.score_plot import thumbnail
    from embodied_reward.cli.score_robot import score_episode, view_files

    episodes = view_files(model, config.view, find_files(paths))
    rows, thumbs = [], {}
    with progress_bar() as bar:
        for files in bar.track(episodes, description="scoring"):
            found, seen = score_episode(model, files, config.text)
            rows += found
            if seen and looks:
                looks.of_episode(model, seen.episode, seen.scores, next(iter(files.values())))
            if config.plot:
                frames = seen.frames if seen else []
                thumbs[found[0].path] = [(time, thumbnail(f)) for time, f in frames]
    return rows, thumbs, "progress" if model.card.progress else "success"


@contextmanager
def _source(config: ScoreConfig, device: str) -> Iterator[tuple["Source", str]]:
    """Open what scores, and yield it with the scorer's name."""
    if config.scorer.startswith(("http://", "https://")):
        from embodied_reward.scoring.transport.client import HttpClient

        url, _, name = config.scorer.partition("#")
        token = os.environ.get("ER_SERVE_TOKEN")
        with HttpClient(url, token=token, timeout=config.timeout) as client:
            yield client, name or _only(client.names, url)
        return
    from embodied_reward.scoring import FeatureCache, ScoringCore
    from embodied_reward.scoring.sources import open_scorer

    scorer = open_scorer(config.scorer, device=device)
    with ScoringCore(cache=FeatureCache(), mode=config.mode) as core:
        core.register(scorer)
        yield core, scorer.card.name


def _only(names: tuple[str, ...], url: str) -> str:
    if len(names) != 1:
        known = ", ".join(names) or "none"
        raise ConfigError(f"{url} serves {known}: write --scorer={url}#NAME")
    return names[0]


def _score_blocks(
    source: "Source", name: str, paths: list[str], config: ScoreConfig
) -> tuple[list["Row"], Thumbs]:
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.cli.score_inputs import Windows, blocks, find_files
    from embodied_reward.cli.score_plot import thumbnail
    from embodied_reward.scoring.clips import read_picture

    files = find_files(paths)
    windows = Windows(config.window, config.stride, config.frames)
    texts = _texts(config)
    reference = read_picture(Path(config.reference)) if config.reference else None
    rows: list[Row] = []
    thumbs: Thumbs = {}
    with progress_bar() as bar:
        task = bar.add_task("scoring", total=len(files))
        for block in blocks(files, windows):
            rows += _score_block(source, name, block, texts, reference, config)
            done = {row.path for row in rows}
            bar.update(task, completed=len(done))
            for item in block.items if config.plot else ():
                if item.times:
                    place = thumbs.setdefault(str(item.path), [])
                    place.append((item.times[-1], thumbnail(block.frames[item.frames[-1]])))
    return rows, thumbs


def _score_block(
    source: "Source",
    name: str,
    block: "Block",
    texts: Mapping[str, str],
    reference: "UInt8 | None",
    config: ScoreConfig,
) -> list["Row"]:
    from embodied_reward.cli.score_output import Row
    from embodied_reward.scoring.status import Status

    rows = [
        Row(str(path), float("nan"), Status.BAD_INPUT.name, frames=0, detail=why)
        for path, why in block.unreadable.items()
    ]
    if not block.items:
        return rows
    request = _request(name, block, texts, reference, config)
    batch = source.score(request)[name]
    return [_row(item, i, batch) for i, item in enumerate(block.items)] + rows


def _request(
    name: str,
    block: "Block",
    texts: Mapping[str, str],
    reference: "UInt8 | None",
    config: ScoreConfig,
) -> "ScoreRequest":
    import numpy as np

    from embodied_reward.scoring import Role, ScoreRequest

    more = [] if reference is None else [reference]
    frames, extra = [*block.frames, *more], [len(block.frames)] * len(more)
    before, first = [Role.REFERENCE] * len(more), [0.0] * len(more)
    index = [[*extra, *item.frames] for item in block.items]
    times = [[*first, *(item.times or (0.0,))] for item in block.items]
    roles = [[*before, *([Role.CURRENT] * len(item.frames))] for item in block.items]
    words = [texts.get(item.path.name, config.text) for item in block.items]
    unique = list(dict.fromkeys(w for w in words if w))
    return ScoreRequest(
        scorers=(name,),
        frames=tuple(frame[None] for frame in frames),
        index=np.concatenate(index).astype(np.int64),
        offsets=np.cumsum([0, *map(len, index)]),
        time=np.concatenate(times).astype(np.float32),
        role=np.concatenate(roles).astype(np.uint8),
        texts=tuple(unique),
        text=np.array([unique.index(w) if w else -1 for w in words]),
        timeout=config.timeout,
    )


def _row(item: "Item", i: int, batch: "ScoreBatch") -> "Row":
    import numpy as np

    from embodied_reward.cli.score_output import Row
    from embodied_reward.scoring.status import Status

    names = ("aleatoric", "epistemic")
    # A scorer that estimates no deviation gives no such columns.
    given = [name for name in names if np.isfinite(getattr(batch, name)).any()]
    columns = {name: float(getattr(batch, name)[i]) for name in given}
    columns |= {n: float(v) for n, v in zip(batch.dim_names, batch.dims[i], strict=False)}
    return Row(
        path=str(item.path),
        score=float(batch.score[i]),
        status=Status(batch.status[i]).name,
        start=item.times[0] if item.times else None,
        end=item.times[-1] if item.times else None,
        frames=len(item.frames),
        columns=columns,
        detail=batch.detail.get(i, ""),
    )


def _text_of(config: ScoreConfig) -> Callable[[Path], str]:
    texts = _texts(config)
    return lambda path: texts.get(path.name, config.text)


def _texts(config: ScoreConfig) -> dict[str, str]:
    if not config.texts:
        return {}
    from embodied_reward.config import read_yaml

    tree = read_yaml(Path(config.texts))
    return {str(Path(name).name): str(text) for name, text in tree.items()}
