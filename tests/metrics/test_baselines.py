import numpy as np
import pytest

from embodied_reward.errors import DatasetError
from embodied_reward.metrics.baselines import (
    Constant,
    ConstantHop,
    PixelDistance,
    Random,
    TimeIndex,
    mean_goals,
    trivial,
)
from embodied_reward.metrics.comparison import BY_DEFINITION, HEADLINE, beaten_by, best
from embodied_reward.metrics.evaluate import evaluate
from embodied_reward.metrics.judge import judge


@pytest.fixture
def episode(toy):
    return toy(np.linspace(0, 1, 40))


@pytest.mark.parametrize(
    ("predictor", "expected"),
    [
        (ConstantHop(0.05), (1.0, 0.0)),
        (ConstantHop(-0.05), (0.0, 1.0)),
        (Constant(), (0.0, 0.0)),
        (TimeIndex(40), (1.0, 1.0)),
    ],
)
def test_voc_of_the_constants_through_episodes(episode, predictor, expected):
    result = judge(predictor, episode, interval=1).voc
    assert (result.plus, result.minus) == pytest.approx(expected, abs=1e-9)


def test_every_baseline_stays_in_range_and_repeats(mixed):
    first = trivial(mixed, mixed[:4], views=["front", "wrist"], seed=3)
    again = trivial(mixed, mixed[:4], views=["front", "wrist"], seed=3)
    assert len(first) == 6
    for name, predictor in first.items():
        for e in mixed:
            scores = predictor.score_episode(e)
            assert scores.potential.shape == (len(e),), name
            assert scores.potential.min() >= 0, name
            assert scores.potential.max() <= 1, name
            assert np.array_equal(scores.potential, again[name].score_episode(e).potential), name


def test_random_differs_between_episodes_and_seeds(toy):
    a, b = toy(np.linspace(0, 1, 9)), toy(np.linspace(0, 1, 9), index=1)
    draws = [Random(0).score_episode(a), Random(0).score_episode(b), Random(1).score_episode(a)]
    assert len({tuple(d.potential) for d in draws}) == 3


def test_pixel_distance_is_0_at_the_start_and_1_at_the_goal(episode):
    scores = PixelDistance(mean_goals([episode], ["front", "wrist"])).score_episode(episode)
    assert scores.potential[0] == 0.0
    assert scores.potential[-1] == 1.0
    assert set(scores.per_view) == {"front", "wrist"}
    assert np.all((scores.potential >= 0) & (scores.potential <= 1))


def test_pixel_distance_of_an_episode_that_starts_at_the_goal(toy):
    episode = toy([1.0, 1.0, 0.5])
    goals = mean_goals([episode], ["front"])
    goals["front"] = episode.views["front"][0].astype(float)
    assert PixelDistance(goals).score_episode(episode).potential.tolist() == [1.0, 1.0, 0.0]


def test_failed_references_give_no_goal_image(mixed):
    assert "pixel distance" not in trivial(mixed, mixed[4:], views=["front"], seed=0)


def test_constant_is_the_median_progress_of_the_reference(mixed):
    constant = trivial(mixed, mixed[:1], views=["front"], seed=0)["constant"]
    assert constant.score_episode(mixed[0]).potential[0] == pytest.approx(0.5)


def test_a_missing_view_and_another_size_are_named(episode, toy):
    goals = mean_goals([episode], ["front"])
    with pytest.raises(DatasetError, match="no view 'fron'; did you mean 'front'"):
        mean_goals([episode], ["fron"])
    with pytest.raises(DatasetError, match=r"\(24, 24\).*\(16, 16\)"):
        PixelDistance(goals).score_episode(toy([0.0, 1.0], size=24))
    with pytest.raises(DatasetError, match="different sizes"):
        mean_goals([episode, toy([0.0, 1.0], size=24)], ["front"])


def test_the_truth_beats_every_baseline_and_each_baseline_loses_somewhere(mixed, oracle):
    table = {
        name: evaluate(p, mixed, resamples=0)["metrics"]
        for name, p in trivial(mixed, mixed[:4], views=["front"], seed=0).items()
    }
    truth = evaluate(oracle, mixed, resamples=0)["metrics"]
    assert beaten_by(truth, table) == []
    for name, metrics in table.items():
        assert beaten_by(metrics, {"truth": truth}), name


def test_a_model_worse_than_random_is_reported(mixed, oracle):
    truth = evaluate(oracle, mixed, resamples=0)["metrics"]
    constant = evaluate(Constant(), mixed, resamples=0)["metrics"]
    found = beaten_by(constant, {"truth": truth})
    assert {"mae", "success_auc", "voc_min"} <= {b.metric for b in found}
    assert "'truth' beats the model on mae: 0.000 against" in str(found[1])
    # An undefined value neither beats nor is beaten.
    assert "spearman" not in {b.metric for b in found}


def test_a_clock_is_not_compared_on_voc(mixed):
    table = {
        name: evaluate(p, mixed, resamples=0)["metrics"]
        for name, p in {"time index": TimeIndex(61), "random": Random(0)}.items()
    }
    assert table["time index"]["voc_min"]["value"] == pytest.approx(1.0)
    assert best("voc_min", table) == {"random"}
    assert not [b for b in beaten_by(table["random"], table) if b.metric == "voc_min"]
    assert {m for _, m in BY_DEFINITION} & set(HEADLINE) == {"voc_min"}
