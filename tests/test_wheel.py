"""The wheel: one top-level name, everything inside, and `er` runs from it anywhere."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("embodied_reward", "envs", "policies", "configs")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build as pip does, from a copy so that the checkout stays clean, without any download."""
    tree, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    result = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)],
        cwd=tree, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_installed(unpacked, cwd, code):
    """Run code that sees the unpacked wheel, not the checkout."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_only_top_level_name_is_ours(wheel):
    names = {n.split("/")[0] for n in zipfile.ZipFile(wheel).namelist()}
    assert {n for n in names if not n.endswith(".dist-info")} == {"embodied_reward"}


def test_every_module_and_preset_is_inside(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {f.relative_to(ROOT).as_posix() for f in (ROOT / "embodied_reward").rglob("*.py")}
    for name in SOURCES[1:]:
        files = [*(ROOT / name).rglob("*.py"), *(ROOT / name).rglob("*.yaml")]
        expected |= {f"embodied_reward/{f.relative_to(ROOT).as_posix()}" for f in files}
    template = (ROOT / "embodied_reward" / "report" / "template").iterdir()
    expected |= {f.relative_to(ROOT).as_posix() for f in template}
    assert any(f.endswith(".yaml") for f in expected)
    assert expected - inside == set()


def test_no_tests_and_no_caches_are_inside(wheel):
    inside = zipfile.ZipFile(wheel).namelist()
    assert not [n for n in inside if "tests/" in n or "__pycache__" in n]


def test_er_runs_from_the_wheel_in_another_folder(unpacked, tmp_path):
    code = "import sys; from embodied_reward.cli import main; sys.exit(main(['--help']))"
    result = run_installed(unpacked, tmp_path, code)
    assert result.returncode == 0, result.stderr
    assert "usage: er <verb>" in result.stdout


def test_the_wheel_uses_its_own_files_and_presets(unpacked, tmp_path):
    code = (
        "import embodied_reward, embodied_reward.envs as e, embodied_reward.policies as p\n"
        "from embodied_reward.cli.command import _presets\n"
        "print(*[m.__file__ for m in (embodied_reward, e, p)], len(embodied_reward.__path__))\n"
        "print(*_presets('collect'))\n"
    )
    result = run_installed(unpacked, tmp_path, code)
    assert result.returncode == 0, result.stderr
    files, presets = result.stdout.splitlines()
    *paths, folders = files.split()
    assert all(Path(f).is_relative_to(unpacked) for f in paths), paths
    assert folders == "1", "an installed wheel must not look for a checkout beside it"
    on_disk = sorted(f.stem for f in (ROOT / "configs" / "collect").glob("*.yaml"))
    assert presets.split() == on_disk


def test_a_bare_checkout_finds_envs_without_being_installed(tmp_path):
    code = "import embodied_reward.envs as e, embodied_reward.policies as p; print(e.__file__)"
    tree = tmp_path / "checkout"
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    result = run_installed(tree, tmp_path, code)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()) == tree / "envs" / "__init__.py"
