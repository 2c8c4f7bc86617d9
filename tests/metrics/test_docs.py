"""The measured table of docs/metrics.md is what its command prints."""

import runpy
from pathlib import Path

from embodied_reward.metrics import outcome
from embodied_reward.metrics.catalogue import METRICS

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_measured_table_and_explains_every_metric():
    page = (ROOT / "docs" / "metrics.md").read_text()
    script = runpy.run_path(str(ROOT / "benchmarks" / "metric_baselines.py"))
    assert script["table"]() in page
    prose = page.replace(script["table"](), "")
    # `path_*` metrics are explained once for all five numbers.
    missing = [n for n in METRICS if f"`{n}`" not in prose and not n.startswith("path_")]
    assert not missing
    for name in ("hover_rate", "reward_hack_gap", "false_gold", "invariance_gap", "iqm_interval"):
        assert hasattr(outcome, name)
        assert f"`{name}" in prose
