import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.math.hops import (
    apply_hop,
    hop_label,
    reference_sources,
    state_frames,
    state_progress,
)

potential = st.floats(0.0, 1.0)


@given(potential, potential)
def test_applying_the_label_gives_the_after_potential_back(before, after):
    assert apply_hop(before, hop_label(before, after)) == pytest.approx(after, abs=1e-12)


@given(potential, st.floats(-1.0, 1.0))
def test_a_hop_never_leaves_the_unit_interval(phi, hop):
    assert 0.0 <= apply_hop(phi, hop) <= 1.0


@given(potential, potential)
def test_labels_are_in_range_and_have_the_sign_of_the_change(before, after):
    label = float(hop_label(before, after))
    assert -1.0 <= label <= 1.0
    assert np.sign(label) == np.sign(after - before)


def test_hops_are_not_antisymmetric():
    assert hop_label(0.25, 0.75) == pytest.approx(2 / 3)
    assert hop_label(0.75, 0.25) == pytest.approx(-2 / 3)
    assert hop_label(0.5, 0.75) != pytest.approx(-hop_label(0.75, 0.5))


def test_published_examples_of_the_label():
    # Half of what remained; a fifth of what was done is lost; goal and start are +-1 away.
    assert hop_label(0.0, 0.5) == 0.5
    assert hop_label(0.5, 0.4) == pytest.approx(-0.2)
    assert hop_label(0.3, 1.0) == 1.0
    assert hop_label(0.3, 0.0) == -1.0
    assert hop_label(1.0, 1.0) == 0.0


@given(st.integers(2, 400), st.integers(1, 50), st.sampled_from(["round", "floor"]))
def test_states_run_from_first_to_last_keyframe(length, chunk, rounding):
    frames = state_frames([3, 3 + length], chunk, rounding=rounding)
    assert frames[0] == 3
    assert frames[-1] == 3 + length
    assert (np.diff(frames) > 0).all()


def test_every_subtask_gets_the_same_progress_mass():
    frames = state_frames([0, 20, 120], 5)
    inner = np.searchsorted(frames, 20)
    assert state_progress(len(frames))[inner] == pytest.approx(0.5)


def test_unusable_keyframes_are_refused():
    with pytest.raises(ValueError, match="increasing keyframes"):
        state_frames([5, 5], 2)


def test_reference_swap_rate_and_range():
    own = np.repeat(np.arange(5), 2000)
    source = reference_sources(own, 5, np.random.default_rng(0), probability=0.75)
    assert source.min() == 0
    assert source.max() == 4
    assert np.mean(source != own) == pytest.approx(0.75, abs=0.02)


def test_one_episode_keeps_its_own_references():
    own = np.zeros(4, np.int64)
    assert (reference_sources(own, 1, np.random.default_rng(0)) == own).all()
