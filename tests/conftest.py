"""Shared test settings."""

import os
import shutil
import signal
from pathlib import Path

import pytest

# Before anything imports torch or MuJoCo: on two shared cores, two threads measured far slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)

# A shell's background job ignores Ctrl-C, and so would this process and those that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--hardware",
        default="",
        metavar="ROBOT.yaml",
        help="run tests/envs/robots/test_arm.py on a real robot, see docs/robots.md",
    )


def _find(names):
    found = (shutil.which(name) for name in names)
    return next((Path(f) for f in found if f), None)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium; skips where there is none. Never downloads a driver."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    chromium = _find(["chromium", "chromium-browser", "google-chrome"])
    driver = _find(["chromedriver"])
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver here: apt-get install chromium chromium-driver")
    os.environ["SE_OFFLINE"] = "true"
    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    flags = ["headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"]
    flags += ["disable-background-networking", "disable-component-update", "disable-sync"]
    for flag in [*flags, f"user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=Service(str(driver)))
    yield session
    session.quit()
