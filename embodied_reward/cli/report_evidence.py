"""Score everything that a report needs: episodes, baselines, missing cameras, probes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied_reward.cli.progress_bar import progress_bar
from embodied_reward.cli.report_material import Material
from embodied_reward.errors import ConfigError
from embodied_reward.metrics.baselines import trivial
from embodied_reward.metrics.evaluate import summarise
from embodied_reward.metrics.judge import Judged, judge
from embodied_reward.metrics.probes import PROBES, Bench, ProbeResult, run_probes
from embodied_reward.metrics.robustness import Robustness
from embodied_reward.report.episodes import choose_shown
from embodied_reward.report.evidence import MODEL, Evidence, Origin
from embodied_reward.report.sprites import Film, film
from embodied_reward.rewards import RewardModel
from embodied_reward.types import UInt8

if TYPE_CHECKING:
    from embodied_reward.cli.report import ReportConfig


def gather(
    config: "ReportConfig",
    model: RewardModel,
    material: Material,
    origin: Origin,
    training: Sequence[Mapping[str, Any]],
    steps: UInt8 | None,
) -> Evidence:
    """Measure the model on the material; shows a progress bar.

    Raises:
        ConfigError: no successful demonstration to take a goal picture from.
        DatasetError: an episode that cannot be scored.
    """
    threshold = success_threshold(config, model)
    judged, robustness = _judge_all(config, model, material)
    table = {
        name: summarise(rows, seed=config.seed, resamples=config.resamples)["metrics"]
        for name, rows in judged.items()
    }
    shown = choose_shown(judged[MODEL], config.shown)
    return Evidence(
        origin=origin,
        card=model.card,
        judged=judged,
        table=table,
        films=_films(config, model, material, shown),
        robustness=robustness,
        probes=_probe(config, model, material, threshold),
        threshold=threshold,
        training=training,
        steps=steps,
        seed=config.seed,
    )


def success_threshold(config: "ReportConfig", model: RewardModel) -> float:
    """Return the probability from which on success counts as claimed."""
    if config.success_threshold is not None:
        return config.success_threshold
    fitted = model.card.extra.get("calibration")
    own = fitted.get("threshold") if isinstance(fitted, Mapping) else None
    return float(own) if isinstance(own, int | float) else 0.5


def _judge_all(
    config: "ReportConfig", model: RewardModel, material: Material
) -> tuple[dict[str, list[Judged]], dict[str, Any]]:
    """Decode each episode once and show it to the model, the baselines, and without a camera."""
    episodes, views = material.episodes, model.card.views
    predictors = {
        MODEL: model,
        **trivial(episodes, material.demos, views=views, seed=config.seed),
    }
    changed = Robustness(views, draws=1, seed=config.seed)
    judged: dict[str, list[Judged]] = {name: [] for name in predictors}
    with progress_bar() as bar:
        task = bar.add_task("episodes", total=len(episodes))
        for position in range(len(episodes)):
            episode = episodes[position]
            for name, predictor in predictors.items():
                judged[name].append(judge(predictor, episode, interval=config.interval))
            changed.add(model, episode, judged[MODEL][-1])
            bar.advance(task)
    return judged, changed.summary()


def _films(
    config: "ReportConfig", model: RewardModel, material: Material, shown: Sequence[int]
) -> dict[int, Film]:
    limit = int(config.megabytes * 1e6 / max(len(shown), 1))
    films = {}
    for position in shown:
        episode = material.episodes[position]
        views = {view: np.asarray(episode.views[view]) for view in model.card.views}
        films[episode.index] = film(views, limit=limit)
    return films


def _probe(
    config: "ReportConfig", model: RewardModel, material: Material, threshold: float
) -> list[ProbeResult]:
    if config.probe_episodes < 1:
        return []
    from embodied_reward.cli.eval_reward import pick_shown

    successes = [e.success for e in material.episodes]
    picked = pick_shown(successes, config.probe_episodes)
    bench = Bench(
        model,
        [material.episodes[i] for i in picked],
        _goals(material, model.card.views),
        model.card.views,
        threshold=threshold,
        seed=config.seed,
        budget=config.probe_budget,
    )
    with progress_bar() as bar:
        task = bar.add_task("probes", total=len(PROBES))
        return run_probes(bench, done=lambda _: bar.advance(task))


def _goals(material: Material, views: Sequence[str]) -> dict[str, UInt8]:
    """Return the last frame of the first successful demonstration: one real picture per view."""
    for demo in material.demos:
        if demo.success is not False:
            return {view: demo.views[view][-1] for view in views}
    raise ConfigError(
        f"{material.reference} hold no success to take a goal picture from; give demonstrations "
        "with --reference.root=FOLDER"
    )
