"""The bounded residual on a frozen clone, random target critics, and batches drawn together."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError
from embodied_reward.policies.actors import clip
from embodied_reward.policies.bc import mean_action
from embodied_reward.policies.replay import DemoReplayBuffer
from embodied_reward.policies.sac import DemoSAC, build_sac


@pytest.fixture
def build(make_learner, demos, small_sac):
    def make(**changes):
        return build_sac(small_sac(**changes), make_learner(), demos=demos, seed=0)

    return make


def test_it_starts_as_the_base_exactly_and_learns_beside_it(build, demos):
    model = build(residual_bound=0.5, bc_weight=0.0)
    obs = torch.from_numpy(demos.obs)
    base = copy.deepcopy(model.actor.base.state_dict())
    assert torch.equal(mean_action(model.policy, obs), model.actor.base_action(obs))
    assert (mean_action(model.policy, obs) - torch.from_numpy(demos.action)).abs().mean() < 0.1
    model.learn(40)
    after = model.actor.base.state_dict()
    assert all(torch.equal(base[k], after[k]) for k in base)
    assert not torch.equal(mean_action(model.policy, obs), model.actor.base_action(obs))


def test_the_correction_stays_within_its_bound(build, demos):
    actor = build(residual_bound=0.3, bc_std=2.0).actor
    obs = torch.from_numpy(demos.obs)
    for _ in range(20):
        action, _ = actor.sample(obs)
        assert (action - actor.base_action(obs)).abs().max() <= 0.3 + 1e-6
        assert action.abs().max() <= 1


def test_beyond_the_range_only_gradients_that_lead_back_pass():
    x = torch.tensor([0.5, 1.5, 1.5, -1.5, -1.5], requires_grad=True)
    clip(x).backward(torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0]))
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0, -1.0]


def test_a_subset_of_critics_is_evaluated_alone(build, demos):
    critic = build(n_critics=5, target_critics=2).critic
    obs, action = torch.from_numpy(demos.obs), torch.from_numpy(demos.action)
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(critic.values(obs, action, rows), critic.values(obs, action)[rows])


def test_batches_drawn_together_are_those_drawn_in_turn(build):
    model = build()
    model.learn(30)
    store: DemoReplayBuffer = model.replay_buffer
    state = store.generator.bit_generator.state
    together = store.sample_many(3, 16)
    store.generator.bit_generator.state = state
    for batch in together:
        for a, b in zip(batch[:5], store.sample(16)[:5], strict=True):
            assert torch.equal(a, b)


def test_a_pickled_buffer_still_writes_where_it_reads(build):
    store = build().replay_buffer
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 (as SB3's save_replay_buffer does)
    again.potentials[:] = 3.0
    assert (again._table["potentials"][: again._own] == 3.0).all()


@pytest.mark.parametrize("change", [{"residual_bound": 0.5}, {"ema_decay": 0.9}])
def test_sb3_saves_and_loads_it(build, demos, change):
    model = build(**change)
    model.learn(30)
    file = io.BytesIO()
    model.save(file, exclude=["replay_buffer_kwargs"])
    file.seek(0)
    again = DemoSAC.load(file, device="cpu")
    for a, b in ((model, again),):
        x, y = (m.predict(demos.obs, deterministic=True)[0] for m in (a, b))
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("change", [{"residual_bound": 3.0}, {"target_critics": 9}])
def test_impossible_values_are_refused(build, change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        build(**change)
