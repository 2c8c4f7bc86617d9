"""A report of a toy model that is partly wrong, and a real browser that opens it."""

import numpy as np
import pytest

from embodied_reward.metrics.baselines import trivial
from embodied_reward.metrics.evaluate import summarise
from embodied_reward.metrics.judge import judge
from embodied_reward.metrics.probes import Bench, run_probes
from embodied_reward.metrics.robustness import Robustness
from embodied_reward.report.document import reward_document
from embodied_reward.report.evidence import MODEL, Evidence, Origin
from embodied_reward.report.page import render
from embodied_reward.report.sprites import film
from embodied_reward.rewards import Card
from embodied_reward.types import Episode, EpisodeScores

VIEWS = ("front", "wrist")
ATTACK = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"


def toy_episode(index, length=40):
    """A square moves right; odd episodes turn back. The square's brightness depends on time."""
    path = np.linspace(0, 1, length)
    progress = path if index % 2 == 0 else 0.7 * np.sin(np.pi * path)
    views = {}
    for v, view in enumerate(VIEWS):
        clip = np.full((length, 32, 32, 3), 30 + 40 * v, np.uint8)
        for t, y in enumerate(progress):
            x = int(y * 26)
            clip[t, 12:18, x : x + 6] = (250, 200 - 3 * t, 20)
        views[view] = clip
    return Episode(
        views=views,
        action=np.zeros((length, 2), np.float32),
        fps=10.0,
        task=ATTACK,
        index=index,
        source=f"toy#{index}",
        length=length,
        success=index % 2 == 0,
        success_frames=progress >= 0.999,
        progress=progress.astype(np.float32),
    )


class Reader:
    """Finds the square in each view; wrong by a share that grows with the episode's index."""

    def score_episode(self, episode):
        per_view = {view: self._read(frames) for view, frames in episode.views.items()}
        bias = 0.02 * (episode.index + 1)
        potential = np.clip(np.mean(list(per_view.values()), axis=0) + bias, 0, 1)
        success = np.where(potential > 0.75, 0.9, 0.1)
        uncertainty = np.linspace(0, 0.2, len(potential))
        return EpisodeScores(potential, success, uncertainty, {}, per_view)

    def _read(self, frames):
        red = (frames[..., 0] > 200) & (frames[..., 2] < 60)
        columns = red.any(axis=1)
        first = np.argmax(columns, axis=1) / 26
        return np.clip(np.where(columns.any(axis=1), first, 0.0), 0.0, 1.0)


@pytest.fixture(scope="session")
def evidence():
    episodes = [toy_episode(i) for i in range(6)]
    model, changed = Reader(), Robustness(VIEWS, draws=1)
    predictors = {MODEL: model, **trivial(episodes, episodes, views=VIEWS, seed=0)}
    judged = {name: [judge(p, e) for e in episodes] for name, p in predictors.items()}
    for episode, row in zip(episodes, judged[MODEL], strict=True):
        changed.add(model, episode, row)
    goals = {view: frames[-1] for view, frames in episodes[0].views.items()}
    bench = Bench(model, episodes[:4], goals, VIEWS, budget=20)
    return Evidence(
        origin=Origin(
            f"er report {ATTACK}", {"dataset": ATTACK}, "Six toy episodes.", "Toys.", ATTACK
        ),
        card=Card("toy", VIEWS, 32, task=ATTACK),
        judged=judged,
        table={n: summarise(rows, resamples=30)["metrics"] for n, rows in judged.items()},
        films={e.index: film(e.views, limit=200_000) for e in episodes[:5]},
        robustness=changed.summary(),
        probes=run_probes(bench),
        threshold=0.5,
        training=[{"step": s, "train/loss": 1 / s} for s in (1, 10, 20)],
        steps=np.full((40, 90, 3), 120, np.uint8),
    )


@pytest.fixture(scope="session")
def document(evidence):
    return reward_document(evidence)


@pytest.fixture(scope="session")
def page(document, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(document), encoding="utf-8")
    return path


SIZES = {"phone": (390, 844), "desktop": (1280, 900)}


@pytest.fixture(params=SIZES)
def opened(request, browser, page):
    """The page at one of two sizes, freshly loaded."""
    return open_page(browser, page, SIZES[request.param])


def open_page(browser, page, size):
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri())
    browser.set_script_timeout(20)
    browser.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 300));"
    )
    return browser
