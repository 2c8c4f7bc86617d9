"""Looks change pictures only, dynamics change what actions do, and level 0 changes nothing."""

import copy
import dataclasses

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.envs import make, make_behaviour
from embodied_reward.envs.variation import DYNAMICS, FACTORS, LOOKS, Material, Variation, vary
from embodied_reward.envs.variation.draws import Draw
from embodied_reward.envs.variation.roles import roles_of
from embodied_reward.errors import EnvError

SWEEP = "embodied_reward/SweepToGoal-MediumStick-v0"
PUSH = "embodied_reward/TablePush-v0"
DRAWER = "embodied_reward/TableDrawer-v0"
METAWORLD = "metaworld/push-v3"


@pytest.fixture
def varied():
    """Build varied environments and close them afterwards."""
    opened = []

    def _varied(env_id, material=None, size=48, horizon=30, pixels=False, views=(), **levels):
        kwargs = {"views": views} if views else {}
        env = make(env_id, size=size, horizon=horizon, pixels=pixels, **kwargs)
        opened.append(vary(env, material=material, **levels))
        return opened[-1]

    yield _varied
    for env in opened:
        env.close()


def trajectory(env, seed, steps=12):
    """Return states, progress and rewards of fixed actions, and the frames of the last state."""
    observation, info = env.reset(seed=seed)
    actions = np.random.default_rng(5).uniform(-1, 1, (steps, *env.action_space.shape))
    actions[:, :2] = 0.7, 0.8  # into what stands there
    rows = [(observation, env.progress(), 0.0, info["is_success"])]
    for action in actions.astype(np.float32):
        observation, reward, _, _, info = env.step(action)
        rows.append((observation, env.progress(), reward, info["is_success"]))
    states = np.array([[*o["agent_pos"], *o["environment_state"]] for o, *_ in rows])
    return states, np.array([[p, r, s] for _, p, r, s in rows]), env.frames()


def same(one, other):
    return all(np.array_equal(one[view], other[view]) for view in one)


@pytest.mark.parametrize("env_id", [SWEEP, PUSH, METAWORLD, "trap/insert"])
def test_level_zero_is_the_original_to_the_bit(build, varied, env_id):
    plain, wrapped = build(env_id, size=48, horizon=30), varied(env_id)
    for seed in (1, None):
        states, numbers, frames = trajectory(plain, seed)
        again = trajectory(wrapped, seed)
        assert np.array_equal(states, again[0])
        assert np.array_equal(numbers, again[1])
        assert same(frames, again[2])
    assert wrapped.fingerprint() == plain.fingerprint()
    assert "variant" not in wrapped.reset()[1]


@pytest.mark.parametrize(
    ("env_id", "looks"), [*((PUSH, (look,)) for look in LOOKS), (METAWORLD, LOOKS)]
)
def test_looks_change_pixels_and_nothing_else(build, varied, env_id, looks):
    states, numbers, frames = trajectory(build(env_id, size=48, horizon=30), 3)
    other = trajectory(varied(env_id, **dict.fromkeys(looks, 1.0)), 3)
    assert np.array_equal(states, other[0])
    assert np.array_equal(numbers, other[1])
    assert all(not np.array_equal(frames[view], other[2][view]) for view in frames)


def experts_actions(env, seed, steps):
    """Return what an expert does in the original, which touches everything."""
    observation, _ = env.reset(seed=seed)
    act, actions = make_behaviour(env, "expert", np.random.default_rng(0)), []
    for _ in range(steps):
        actions.append(act(observation))
        observation, *_ = env.step(actions[-1])
    return actions


def states_of(env, seed, actions):
    rows = [env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)]
    return np.array([[*row["agent_pos"], *row["environment_state"]] for row in rows])


@pytest.mark.parametrize(
    ("env_id", "factor"),
    [
        *((PUSH, factor) for factor in DYNAMICS if factor not in ("damping", "mass")),
        *((SWEEP, factor) for factor in ("mass", "damping", "object_size")),
        (DRAWER, "damping"),
        (METAWORLD, "robot"),
        (METAWORLD, "gravity"),
    ],
)
def test_dynamics_change_what_actions_do(build, varied, env_id, factor):
    plain, env = build(env_id, horizon=90), varied(env_id, horizon=90, **{factor: 1.0})
    actions = experts_actions(plain, 3, 60)
    states, other = states_of(plain, 3, actions), states_of(env, 3, actions)
    assert np.abs(states - other).max() > 1e-3
    assert np.isfinite(other).all()
    assert not 0.85 < env.multipliers[factor] < 1.15


def arrays(model):
    names = [n for n in dir(model) if not n.startswith("_")]
    found = {n: getattr(model, n) for n in names}
    return {n: a.copy() for n, a in found.items() if isinstance(a, np.ndarray)}


def model_state(model):
    scalars = (model.opt.disableflags, *model.opt.gravity, *model.vis.headlight.diffuse)
    return arrays(model), (*scalars, model.stat.extent, *model.vis.headlight.ambient)


@pytest.mark.parametrize("env_id", [PUSH, SWEEP, METAWORLD])
def test_everything_is_put_back_exactly(build, varied, env_id):
    plain = build(env_id, size=48, horizon=30)
    expected = trajectory(plain, 4)
    missing = {SWEEP: ("gravity", "fixture_colour"), PUSH: ("damping",), METAWORLD: ("damping",)}
    levels = {factor: 0.8 for factor in FACTORS if factor not in missing[env_id]}
    env = varied(env_id, **levels)
    base = env.unwrapped
    base.reset(seed=4)
    base.frames()
    before, numbers = model_state(base.model)
    trajectory(env, 4)
    env.restore()
    base.reset(seed=4)
    after, same_numbers = model_state(base.model)
    assert numbers == same_numbers
    assert [name for name in before if not np.array_equal(before[name], after[name])] == []
    states, rows, frames = trajectory(base, 4)
    assert np.array_equal(states, expected[0])
    assert np.array_equal(rows, expected[1])
    assert same(frames, expected[2])


def test_a_picture_leaves_the_scene_as_it_was(varied):
    levels = dict.fromkeys(LOOKS, 1.0)
    env = varied(PUSH, **levels)
    env.reset(seed=0)
    env.frames()
    before, data = arrays(env.unwrapped.model), copy.copy(env.unwrapped.data)
    env.unwrapped._forget_frames()
    env.frames()
    after = arrays(env.unwrapped.model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert np.array_equal(data.light_xpos, env.unwrapped.data.light_xpos)
    assert np.array_equal(data.cam_xmat, env.unwrapped.data.cam_xmat)


def test_a_higher_level_strays_further(build):
    base = build(PUSH, size=48)
    base.reset(seed=0)
    original = base.frames()["front"].astype(int)

    def distance(look, level):
        found = []
        for variant in range(3):
            env = vary(base, **{look: level}, variant=variant)
            env.reset(seed=0)
            found.append(np.abs(env.frames()["front"] - original).mean())
            env.restore()
        return np.mean(found)

    for look in LOOKS:
        low, middle, high = (distance(look, level) for level in (0.2, 0.6, 1.0))
        assert 0 < low < middle < high, look


def test_a_seed_decides_the_variant_whatever_went_before(varied):
    one, two = (varied(PUSH, texture=1.0, mass=0.5) for _ in range(2))
    two.reset(seed=9), two.step(two.action_space.sample()), two.reset()
    one.reset(seed=3), two.reset(seed=3)
    assert one.variant == two.variant
    assert one.multipliers == two.multipliers
    assert same(one.frames(), two.frames())
    drawn = {one.reset()[1]["variant"] for _ in range(5)}
    assert len(drawn) == 5


def test_variants_are_few_and_fixed_where_asked_for(varied):
    env = varied(PUSH, object_colour=1.0, variants=3)
    seen = {}
    for seed in range(12):
        _, info = env.reset(seed=seed)
        colour = env._costume.draws("object_colour").leading
        assert seen.setdefault(info["variant"], colour) == colour
    assert sorted(seen) == [0, 1, 2]
    pinned = varied(PUSH, object_colour=1.0, variants=3, variant=2)
    assert {pinned.reset(seed=seed)[1]["variant"] for seed in range(4)} == {2}


def test_the_constructors_seed_decides_the_first_reset():
    one, two = (vary(make(PUSH, seed=6), mass=1.0) for _ in range(2))
    assert one.reset()[1]["variant"] == two.reset()[1]["variant"]
    assert one.reset(seed=6)[1]["variant"] == two.reset(seed=6)[1]["variant"]


@pytest.mark.parametrize("factor", FACTORS)
def test_train_and_test_share_no_variant(factor):
    train = [Draw(factor, i, seed, "train").leading for seed in (0, 1) for i in range(200)]
    test = [Draw(factor, i, seed, "test").leading for seed in (0, 2) for i in range(200)]
    gaps = np.abs(np.array(train)[:, None] - np.array(test))
    assert gaps.min() > 0.1 / 12  # both keep clear of the border between two cells
    assert np.histogram(train, 4, (0, 1))[0].min() > 40  # both reach everywhere
    assert np.histogram(test, 4, (0, 1))[0].min() > 40


def test_factors_draw_independently(varied):
    alone, both = varied(PUSH, texture=1.0), varied(PUSH, texture=1.0, mass=1.0, friction=0.5)
    alone.reset(seed=1), both.reset(seed=1)
    assert same(alone.frames(), both.frames())
    other = varied(PUSH, mass=1.0)
    other.reset(seed=1)
    assert other.multipliers["mass"] == both.multipliers["mass"]


def test_settings_seeds_are_different_worlds(varied):
    pictures = []
    for settings in ({"seed": 0}, {"seed": 1}, {"split": "test"}):
        env = varied(PUSH, texture=1.0, **settings)
        env.reset(seed=1)
        pictures.append(env.frames())
    assert not same(pictures[0], pictures[1])
    assert not same(pictures[0], pictures[2])


def test_moving_backgrounds_follow_decisions_and_not_renderings(varied):
    seldom, often = varied(PUSH, video=1.0), varied(PUSH, video=1.0)
    still = np.zeros(4, np.float32)
    first = (seldom.reset(seed=2), seldom.frames())[1]
    often.reset(seed=2)
    for _ in range(4):
        seldom.step(still), often.step(still)
        often.frames()
    assert same(seldom.frames(), often.frames())
    corner = (slice(0, 8), slice(0, 8))
    assert not np.array_equal(first["front"][corner], seldom.frames()["front"][corner])


def test_pictures_and_videos_of_others_are_shown(varied):
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    blue = np.zeros((5, 30, 30, 3), np.uint8)
    blue[..., 2] = 255
    material = Material(pictures=[red], videos=[blue])
    for factor, channel in (("texture", 0), ("video", 2)):
        env = varied(SWEEP, material=material, **{factor: 1.0})
        env.reset(seed=0)
        floor = env.frames()["top"][30:36, 5:12].reshape(-1, 3)
        assert floor.argmax(axis=1).tolist() == [channel] * len(floor)


def test_the_pattern_lies_on_the_table_whatever_the_camera_sees(varied):
    """Two cameras that look at one point of the table see one colour there."""
    env = varied(PUSH, texture=1.0, size=256, views=("front", "top"))
    env.reset(seed=0)
    frames, data, model = env.frames(), env.unwrapped.data, env.unwrapped.model
    points = [np.array([x, y, 0.0]) for x in (-0.15, 0.15) for y in (-0.2, -0.1, 0.0)]
    pairs = []
    for point in points:
        seen = []
        for view in ("front", "top"):
            camera = data.camera(view)
            x, y, z = camera.xmat.reshape(3, 3).T @ (point - camera.xpos)
            focal = 128 / np.tan(np.deg2rad(model.camera(view).fovy[0]) / 2)
            at = round(128 - focal * y / -z), round(128 + focal * x / -z)
            seen.append(frames[view][at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2])
        pairs.append([patch.reshape(-1, 3).mean(axis=0) for patch in seen])
    hues = np.array(pairs) / np.sum(pairs, axis=-1, keepdims=True)  # light differs with the view
    assert np.abs(hues[:, 0] - hues[:, 1]).max() < 0.03
    assert np.abs(hues[1:, 0] - hues[:-1, 0]).max() > 0.06


def test_full_quality_shows_the_same_backgrounds_and_distractors(build):
    """Several samples a pixel have other depths, by which the background is told."""
    kinds = {}
    for quality in ("fast", "full"):
        base = build(METAWORLD, size=96, quality=quality)
        plain = (base.reset(seed=0), base.frames())[1]["corner2"].astype(int)
        env = vary(base, texture=1.0, distractors=1.0, variant=2)
        env.reset(seed=0)
        kinds[quality] = np.abs(env.frames()["corner2"] - plain).sum(axis=-1) > 40
    assert kinds["fast"].mean() > 0.4
    assert (kinds["fast"] == kinds["full"]).mean() > 0.9


def test_distractors_are_nothing_of_the_model_in_segmentations(varied):
    """Where they are, a segmentation shows neither table nor objects."""
    env = varied(PUSH, distractors=1.0, size=64)
    env.reset(seed=0)
    base = env.unwrapped
    base.frames()
    labels = base._renderer.segment(base.data, base._dress)["front"]
    plain = base._renderer.segment(base.data)["front"]
    hidden = (labels != plain).any(axis=-1)
    assert hidden.sum() > 40
    assert (labels[hidden][:, 0] == -1).all()


def test_goals_and_marks_keep_their_colours(build, varied):
    colours = dict.fromkeys(("texture", "robot_colour", "object_colour"), 1.0)
    plain, env = build(SWEEP, size=64), varied(SWEEP, size=64, **colours)
    plain.reset(seed=0), env.reset(seed=0)
    zone = (slice(6, 12), slice(8, 56))
    assert np.array_equal(plain.frames()["top"][zone], env.frames()["top"][zone])
    assert not np.array_equal(plain.frames()["top"][40:], env.frames()["top"][40:])


@pytest.mark.parametrize("env_id", [SWEEP, PUSH, METAWORLD])
def test_distractors_hide_nothing_that_matters(build, varied, env_id):
    env = varied(env_id, distractors=1.0, size=96)
    for seed in range(3):
        env.reset(seed=seed)
        found, roles, data = env._costume.distractors, env._roles, env.unwrapped.data
        assert 3 <= len(found.kinds) <= 8
        objects = np.flatnonzero(roles.object_geoms)
        gaps = np.linalg.norm(
            found.places[:, None, :2] - data.geom_xpos[objects][None, :, :2], axis=-1
        )
        clear = env.unwrapped.model.geom_rbound[objects] + found.sizes[:, :2].max()
        assert np.all(gaps > clear)


# Gymnasium's checker warns of every wrapper; nothing else may be wrong.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("env_id", [SWEEP, METAWORLD])
def test_checkers_find_nothing(varied, env_id, pixels):
    levels = dict.fromkeys(("texture", "video", "distractors", "light", "mass", "friction"), 0.5)
    gymnasium_check(varied(env_id, pixels=pixels, **levels), skip_render_check=True)
    sb3_check(varied(env_id, **levels))


def test_vector_environments_share_no_model():
    def one(variant):
        return lambda: vary(make(PUSH, horizon=20), mass=1.0, variants=4, variant=variant)

    vector = DummyVecEnv([one(0), one(1), one(-1)])
    vector.seed(0)
    vector.reset()
    models = [env.unwrapped.model for env in vector.envs]
    masses = [float(model.body("puck").mass[0]) for model in models]
    assert len({id(model) for model in models}) == 3
    assert masses[0] != masses[1]
    vector.step(np.zeros((3, 4), np.float32))
    assert masses == [float(model.body("puck").mass[0]) for model in models]
    vector.close()


def test_the_fingerprint_names_the_variation(varied):
    env = varied(PUSH, texture=0.5, split="test")
    known = env.fingerprint()["variation"]
    assert known["texture"] == 0.5
    assert known["split"] == "test"
    assert env.fingerprint()["id"] == PUSH


def test_what_lerobot_and_our_wrappers_read(varied):
    env = varied(PUSH, texture=0.5, horizon=33)
    assert env.views == ("front", "side")
    assert env.task == "TablePush-v0"
    assert env.task_description == "push the puck onto the mark"
    assert env._max_episode_steps == 33
    assert env.metadata["render_fps"] == 20.0


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"texture": 1.5}, r"'texture' must be a level in \[0, 1\], got 1.5"),
        ({"mass": -0.1}, "'mass' must be a level"),
        ({"light": float("nan")}, "'light' must be a level"),
        ({"texure": 0.5}, "unknown variation 'texure'.*texture"),
        ({"split": "tset", "mass": 1.0}, "unknown split 'tset'.*test"),
        ({"variants": 3, "variant": 3}, "variant must be -1 .draw one. or 0 to 2, got 3"),
        ({"seed": -1}, "must be at least 0"),
    ],
)
def test_bad_settings_are_one_clear_error(build, levels, message):
    with pytest.raises(EnvError, match=message):
        vary(build(PUSH), **levels)


@pytest.mark.parametrize(
    ("env_id", "factor", "message"),
    [
        (SWEEP, "gravity", "'gravity' has nothing to vary here: there is no gravity"),
        (SWEEP, "fixture_colour", "only background stands still"),
        ("embodied_reward/TableReach-v0", "object_size", "no object is loose"),
        (DRAWER, "object_size", "no object is loose"),
        ("trap/insert", "friction", "simulates no forces"),
    ],
)
def test_a_factor_without_anything_to_vary_is_refused(build, env_id, factor, message):
    with pytest.raises(EnvError, match=message):
        vary(build(env_id), **{factor: 0.5})


def test_one_wrapper_varies_everything(varied, build):
    with pytest.raises(EnvError, match="varied already"):
        vary(varied(PUSH, mass=0.5), texture=0.5)


def test_settings_are_plain_values():
    settings = dataclasses.asdict(Variation(texture=0.5))
    assert Variation(**settings) == Variation(texture=0.5)
    assert Variation(texture=0.5).levels == {"texture": 0.5}


ARM = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="3 3 .1"/>
    <geom name="wall_left_visual" type="plane" size="3 3 .1" pos="-3 0 1" group="1"/>
    <body name="table"><geom name="table_visual" type="box" size=".4 .4 .02" pos="0 0 .8"/></body>
    <body name="robot0_base"><geom name="pedestal" type="cylinder" size=".1 .3"/>
      <body name="robot0_link" pos="0 0 .5"><joint name="j" axis="0 0 1"/>
        <geom name="link" type="capsule" size=".05 .2"/>
        <body name="gripper" pos="0 0 .3"><joint name="finger" type="slide"/>
          <geom name="pad" type="box" size=".01 .01 .02"/></body></body></body>
    <body name="cube" pos="0 0 .9"><freejoint/>
      <geom name="cube" type="box" size=".02 .02 .02"/></body>
    <body name="bin" pos=".2 0 .82"><geom name="bin" type="box" size=".1 .1 .01"/></body>
    <geom name="mark" type="cylinder" size=".05 .001" contype="0" conaffinity="0"/>
    <body name="goal" mocap="true"><geom name="goal" type="sphere" size=".02"/></body>
  </worldbody>
  <tendon><fixed name="grip"><joint joint="finger" coef="1"/></fixed></tendon>
  <actuator><motor joint="j"/><position tendon="grip"/></actuator>
</mujoco>
"""


@pytest.mark.parametrize("actuators", [ARM, ARM.replace('<motor joint="j"/>', "")])
def test_roles_are_read_off_any_model(actuators):
    model = mujoco.MjModel.from_xml_string(actuators)
    roles = roles_of(model)

    def names(mask):
        return {model.geom(i).name for i in np.flatnonzero(mask)}

    assert names(roles.background_geoms) == {"floor", "wall_left_visual", "table_visual"}
    assert names(roles.robot_geoms) == {"pedestal", "link", "pad"}
    assert names(roles.object_geoms) == {"cube"}
    assert names(roles.fixture_geoms) == {"bin"}
    assert model.nv == 8
    assert roles.robot_dofs.sum() == 2
    assert [model.body(i).name for i in np.flatnonzero(roles.loose)] == ["cube"]
