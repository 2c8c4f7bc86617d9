import importlib.metadata
import subprocess
import sys

import pytest

from embodied_reward.cli import VERBS, main

HEAVY = ("torch", "mujoco", "numpy", "draccus", "rich", "matplotlib", "gymnasium", "lerobot")


def run(*argv):
    code = (
        "import sys\nfrom embodied_reward.cli import main\nstatus = main(sys.argv[1:])\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])\nsys.exit(status)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb_without_importing_anything_heavy(argv):
    result = run(*argv)
    assert result.returncode == 0, result.stderr
    for verb, text in VERBS.items():
        assert f"  {verb} " in result.stdout
        assert text in result.stdout
    assert "HEAVY []" in result.stdout


def test_version_is_that_of_the_distribution():
    result = run("--version")
    assert result.stdout.splitlines()[0] == importlib.metadata.version("embodied-reward")
    assert "HEAVY []" in result.stdout


def test_an_unknown_verb_names_the_nearest(capsys):
    assert main(["train-rewards"]) == 2
    assert capsys.readouterr().err == (
        "er: unknown verb 'train-rewards'; did you mean 'train-reward' or 'train-scorer' or "
        "'audit-reward'?\n"
    )


def test_the_installed_script_is_this_main():
    (script,) = [
        e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == "er"
    ]
    assert script.load() is main


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_prints_its_own_help(verb, capsys):
    assert main([verb, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"er {verb}" in printed
    assert "--" in printed


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"data", "benchmark"}))
def test_every_verb_refuses_an_unknown_key_in_one_line(verb, capsys):
    assert main([verb, "--nonsense.key=1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"er {verb}: unknown configuration key '--nonsense.key'")
    assert error.count("\n") == 1


def test_ctrl_c_ends_with_status_130(monkeypatch, capsys):
    from embodied_reward.cli import doctor

    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "main", interrupted)
    assert main(["doctor"]) == 130
    assert "interrupted" in capsys.readouterr().err
