"""500 damaged and hostile datasets: each is one named error, quickly, in little memory."""

import mmap
import sys
from collections import Counter

import malformed
import pytest
import trial

CASES = malformed.cases()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = malformed.sound(tmp_path_factory.mktemp("sound"))
    trial.warm_up(root)  # also: every dataset from which cases are made is read without an error
    return root


def test_there_are_enough_of_every_kind():
    kinds = Counter(case.kind for case in CASES)
    assert len(CASES) >= 300
    for kind in ("truncated", "bomb", "not finite", "wrong type", "leads out", "object codec"):
        assert kinds[kind] >= 15


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_one_named_error(case, sound):
    if "jpegxl" in case.name or "imagecodecs" in case.name:
        pytest.importorskip("imagecodecs")
    outcome = trial.attempt(case, sound)
    if outcome.seconds > 1:  # a busy machine; a case that is slow is slow again
        outcome = trial.attempt(case, sound)
    assert outcome.named, outcome.error
    assert outcome.good, outcome.error
    assert outcome.seconds < 1
    assert outcome.memory < trial.MEMORY


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux only")
def test_the_measurement_sees_memory():
    """A bound on memory proves nothing if the measurement is blind."""
    before = trial.reset_peak()
    # Fresh pages: an array may lie where earlier tests have left memory to the process.
    with mmap.mmap(-1, 96 * 2**20) as pages:
        pages.write(b"1" * len(pages))
        assert trial.peak() - before > 90
