"""The doctor is shown sick machines: broken metadata, drivers, codecs; each must be named."""

import json
import os
import platform
import shlex

import pytest

from embodied_reward.cli import doctor, doctor_checks, main
from embodied_reward.cli.doctor_checks import Finding


def pretend_installed(folder, name, version):
    """What `metadata` reads of an installed wheel."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_this_machine_passes_and_every_check_reports(capsys):
    assert main(["doctor", "--json=true"]) == 0
    findings = json.loads(capsys.readouterr().out)
    names = [f["check"] for f in findings]
    assert names == ["Python", "packages", "OpenCV", "OpenGL", "video", "torch", "disk"]
    for finding in findings:
        assert finding["level"] in ("ok", "warn")
        assert finding["found"]
        assert bool(finding["mend"]) == (finding["level"] != "ok")


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr(platform, "python_version", lambda: "3.11.9")
    finding = doctor_checks.python_version()
    assert (finding.level, "3.11.9" in finding.found) == ("fail", True)
    assert "uv python install" in finding.mend


def test_a_package_outside_its_range_is_named_with_the_range(tmp_path, monkeypatch):
    pretend_installed(tmp_path, "numpy", "1.26.4")
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = doctor_checks.pinned_packages()
    assert finding.level == "fail"
    assert "numpy 1.26.4 (needs <2.3,>=2)" in finding.found
    assert finding.mend == "uv sync"


def test_a_simulator_too_new_is_caught_though_it_is_an_extra(tmp_path, monkeypatch):
    pretend_installed(tmp_path, "mujoco", "4.0.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "mujoco 4.0.0" in doctor_checks.pinned_packages().found


def test_two_opencv_wheels_fail_with_the_command_that_leaves_one(tmp_path, monkeypatch):
    pretend_installed(tmp_path, "opencv-python", "5.0.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = doctor_checks.one_opencv()
    assert finding.level == "fail"
    assert "opencv-python, opencv-python-headless" in finding.found
    words = shlex.split(finding.mend)
    assert {"opencv-python", "opencv-python-headless"} <= set(words)
    assert words[-1] == "opencv-python-headless"


def test_real_renderer_is_named(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    finding = doctor_checks.gl_renderer()
    assert finding.level == "ok"
    assert finding.found.startswith(("egl: ", "cgl: "))


def test_a_broken_egl_library_fails_with_the_apt_command(tmp_path, monkeypatch):
    (tmp_path / "libEGL.so.1").write_text("not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    finding = doctor_checks.gl_renderer()
    assert finding.level == "fail"
    assert "libEGL.so.1" in finding.found
    assert "apt-get install -y libegl1 libgl1-mesa-dri libgles2" in finding.mend


def test_a_driver_that_aborts_or_hangs_does_not_take_the_doctor_with_it(monkeypatch):
    monkeypatch.setattr(doctor_checks, "GL_PROBE", "import os; os.abort()")
    finding = doctor_checks.gl_renderer()
    assert (finding.level, "(-6)" in finding.found) == ("fail", True)
    monkeypatch.setattr(doctor_checks, "GL_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor_checks, "PROBE_SECONDS", 1)
    finding = doctor_checks.gl_renderer()
    assert (finding.level, "no answer in 1 s" in finding.found) == ("fail", True)


def test_a_missing_codec_fails(monkeypatch):
    real = doctor_checks._round_trip
    monkeypatch.setattr(doctor_checks, "_round_trip", lambda encoder: real("lib" + encoder))
    finding = doctor_checks.video_codecs()
    assert finding.level == "fail"
    assert "libx264" in finding.found


def test_little_disk_space_warns(monkeypatch):
    monkeypatch.setattr(doctor_checks, "NEEDED_GB", 1e9)
    assert doctor_checks.disk_space().level == "warn"


def test_a_failing_check_sets_the_exit_status_and_prints_a_copyable_command(monkeypatch, capsys):
    command = "apt-get install -y " + " ".join(f"package-{i}[x]" for i in range(20))

    def broken():
        return Finding("thing", "fail", "it is broken", command)

    def crashing():
        raise OSError("no such device")

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(doctor_checks, "ALL", (broken, crashing))
    assert doctor.main([]) == 1
    printed = capsys.readouterr().out
    assert f"  {command}\n" in printed
    assert "OSError: no such device" in " ".join(printed.split())
    assert "2 fail" in printed


def test_warnings_alone_are_no_failure(monkeypatch, capsys):
    monkeypatch.setattr(doctor_checks, "ALL", (lambda: Finding("x", "warn", "slow", "faster"),))
    assert main(["doctor"]) == 0
    assert "1 warn" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs user ids")
def test_sudo_is_suggested_to_ordinary_users(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert doctor_checks._gl_mend().startswith("sudo apt-get update && sudo apt-get install")
