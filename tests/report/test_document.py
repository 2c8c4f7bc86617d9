"""What the page is told, without a browser."""

import json
import math

import numpy as np
import pytest

from embodied_reward.report.episodes import choose_shown
from embodied_reward.report.evidence import MODEL
from embodied_reward.report.learning import learning_curves, read_rows
from embodied_reward.report.metric_table import verdict
from embodied_reward.report.page import render
from embodied_reward.report.sprites import film


def table(ours, theirs, low=0.0, high=1.0):
    return {
        MODEL: {"spearman": {"value": ours, "low": low, "high": high}},
        "constant": {"spearman": {"value": theirs, "low": math.nan, "high": math.nan}},
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "state"),
    [
        (0.9, 0.5, 0.8, "win"),
        (0.9, 0.5, 0.4, "close"),
        (0.5, 0.9, 0.4, "lose"),
        (0.5, 0.5, 0.4, "tie"),
        (math.nan, 0.5, math.nan, "undefined"),
        (0.5, math.nan, 0.4, "undefined"),
    ],
)
def test_verdicts_say_who_wins(ours, theirs, low, state):
    assert verdict("spearman", table(ours, theirs, low))["state"] == state


def test_values_that_look_alike_are_told_apart():
    assert "0.9990 against 0.9992" in verdict("spearman", table(0.99921, 0.99899, 0.999))["text"]


def test_the_page_holds_one_document_that_cannot_end_its_script(document):
    html = render(document)
    assert html.count("<script") == 2
    assert html.count("</script>") == 2
    start = html.index('type="application/json">') + len('type="application/json">')
    read = json.loads(html[start : html.index("</script>", start)])
    assert read["title"] == document["title"]
    assert len(html) < 15e6


def test_placeholders_in_the_data_stay_data(document):
    html = render({**document, "title": "{{style}}{{script}}{{document}}"})
    assert html.count("'use strict'") == 1


def test_undefined_numbers_carry_a_reason(document):
    cells = [cell for row in document["metrics"]["rows"] for cell in row["cells"]]
    undefined = [cell for cell in cells if not math.isfinite(cell["value"])]
    assert undefined
    assert all(cell["reason"] for cell in undefined)


def test_the_worst_lists_are_ordered_and_drops_say_what_is_lost(document):
    by_id = {row["id"]: row for row in document["episodes"]}
    errors = [by_id[name]["mae"] for name in document["worst"]["error"]]
    assert errors == sorted(errors, reverse=True)
    ranks = [by_id[name]["spearman"] for name in document["worst"]["rank"]]
    assert ranks == sorted(ranks)
    assert [row["view"] for row in document["drops"]] == ["", "front", "wrist"]


def test_pictures_are_chosen_from_both_ends(evidence):
    judged = evidence.model
    chosen = choose_shown(judged, 3)
    errors = [j.mae for j in judged]
    assert int(np.argmax(errors)) in chosen
    assert len(choose_shown(judged, 99)) == len(judged)
    assert len(set(chosen)) == 3


def test_films_keep_to_their_limit():
    noise = np.random.default_rng(0).integers(0, 256, (90, 64, 64, 3), np.uint8)
    generous, frugal = film({"v": noise}, limit=10**7), film({"v": noise}, limit=60_000)
    assert frugal.size <= 60_000 < generous.size
    assert (generous.frames[0], generous.frames[-1]) == (0, 89)
    assert len(frugal.frames) < len(generous.frames)


def test_learning_curves_come_in_the_order_of_interest(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"step": 0, "train/x": 1.0, "eval/success_rate": 0.0, "eval/hover_rate": 0.5,
         "eval/success_low": 0.0, "eval/success_high": 0.4},
        {"step": 5, "train/x": None, "eval/success_rate": 0.5, "eval/false_success": 0.0,
         "eval/success_low": 0.1, "eval/success_high": 0.9},
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 9, "tra')
    curves = learning_curves(read_rows(path))
    assert [c["key"] for c in curves] == [
        "eval/success_rate", "eval/hover_rate", "eval/false_success", "train/x",
    ]  # fmt: skip
    assert curves[0]["band"] == [[0, 0.0, 0.4], [5, 0.1, 0.9]]
    assert curves[3]["points"] == [[0, 1.0]]
    assert read_rows(tmp_path / "none.jsonl") == []
