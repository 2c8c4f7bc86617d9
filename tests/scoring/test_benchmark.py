"""The comparators of `benchmarks/scoring` are real: they score what the core scores."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "scoring"


@pytest.fixture(scope="module")
def folder():
    sys.path.insert(0, str(FOLDER))
    yield FOLDER
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def sides(folder):
    import comparators
    from ours import InProcess
    from trunk_zoo import build

    model = build("vit-tiny")
    makers = [*comparators.COMPARATORS, InProcess, lambda m: InProcess(m, cached=False)]
    made = [make(model) for make in makers]
    yield {side.name: side for side in made}
    for side in made:
        side.close()


@pytest.mark.slow
def test_every_side_scores_the_same_numbers(sides):
    from workloads import smooth

    frames = smooth(64, 12, np.random.default_rng(0))
    texts = [f"prompt {k // 4}" for k in range(12)]
    bare = sides["(e) bare loop"]
    wanted = [
        bare.score(frames),
        bare.score(frames, texts),
        bare.windows(frames, 8),
        bare.stream(frames, 8),
        *bare.heads(frames),
    ]
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01  # prompts matter
    assert wanted[0].std() > 0.01
    for name, side in sides.items():
        found = [
            side.score(frames),
            side.score(frames, texts),
            side.windows(frames, 8),
            side.stream(frames, 8),
            *side.heads(frames),
        ]
        jpeg = name.startswith("(a)")
        tolerance = 0.2 * wanted[0].std() if jpeg else 1e-5
        for got, want in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got, want, atol=tolerance, err_msg=name)
        if jpeg:  # the loss is real, so JPEG is really used
            assert np.abs(found[0] - wanted[0]).max() > 1e-4


def test_windows_cost_the_core_one_encoding_per_frame(sides):
    frames = np.random.default_rng(3).integers(0, 256, (20, 64, 64, 3), np.uint8)
    core = sides["core"].client
    before = core.stats().get("trunk_images", 0)
    sides["core"].windows(frames, 8)
    sides["core"].stream(frames, 8)
    assert core.stats()["trunk_images"] - before == 20


def test_ratios_are_taken_within_rounds(folder):
    from workloads import Result

    fast = Result("w", "t", "pictures/s", {"a": [10, 30, 20], "b": [5, 10, 10]})
    assert fast.ratio("a", "b") == 2
    slow = Result("w", "t", "ms", {"a": [1, 2, 4], "b": [2, 2, 16]}, lower=True)
    assert slow.ratio("a", "b") == 2


@pytest.mark.slow
def test_the_benchmark_runs_to_its_tables(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    command = [sys.executable, str(FOLDER / "run.py"), "--quick"]
    command += [f"--json={tmp_path / 'all.json'}", f"--docs={page}"]
    subprocess.run(command, check=True, timeout=500)
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    measured = json.loads((tmp_path / "all.json").read_text())
    kinds = {r["workload"] for r in measured["results"]}
    assert len(kinds) >= 12
    assert all(np.isfinite(v).all() for r in measured["results"] for v in r["rounds"].values())
    for name in {n for r in measured["results"] for n in r["rounds"]}:
        assert name in text
