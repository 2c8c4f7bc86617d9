import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from embodied_reward.envs import list_envs, make, registry
from embodied_reward.errors import EnvError


def test_all_tasks_are_listed():
    ids = list_envs()
    assert len(ids) == len(set(ids)) == 50 + 13 + 1 + 16  # Meta-World, robosuite, trap, suite
    assert "metaworld/drawer-open-v3" in ids


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("metaworld/drawer-opne-v3", "metaworld/drawer-open-v3"),
        ("metaworld/drawer-open", "metaworld/drawer-open-v3"),
        ("metaworl/reach-v3", "metaworld/reach-v3"),
        ("reach-v3", "metaworld/reach-v3"),
    ],
)
def test_unknown_ids_name_the_nearest(wrong, right):
    with pytest.raises(EnvError, match=f"unknown environment '{wrong}'.*'{right}'"):
        make(wrong)


def test_third_party_suites_come_by_entry_point(monkeypatch):
    point = EntryPoint("mine", "embodied_reward.envs.metaworld", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert "mine/reach-v3" in list_envs()
    env = make("mine/reach-v3", size=32)
    env.reset()
    assert env.render().shape == (32, 32, 3)
    env.close()


def test_importing_the_package_imports_no_simulator():
    code = (
        "import sys, embodied_reward.envs; print({'mujoco', 'gymnasium', 'torch'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "set()", run.stderr
