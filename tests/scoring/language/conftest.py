"""Small language models that were trained on drawn pictures, in seconds."""

import numpy as np
import pytest

from embodied_reward.scoring.language.fit import fit_reader
from embodied_reward.scoring.language.reader import Turn
from embodied_reward.scoring.language.small import small_reader

SIZE = 32
LARGER = "is the second disk larger than the first ? answer yes or no ."
DESCRIBE = "describe this image in detail ."
COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}
SHAPES = ("disk", "bar", "column")
SIDES = ("left", "right")


def disk(radius, rng):
    """A disk anywhere, on noise."""
    y, x = np.mgrid[:SIZE, :SIZE]
    cy, cx = rng.uniform(10, SIZE - 10, 2)
    image = rng.integers(0, 60, (SIZE, SIZE, 3)).astype(np.uint8)
    image[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = (230, 60, 60)
    return image


def disk_pairs(n, seed):
    """Pairs of disks, and whether the second is larger."""
    rng = np.random.default_rng(seed)
    radii = [rng.uniform(2, 10, 2) for _ in range(n)]
    return [(disk(a, rng), disk(b, rng), bool(b > a)) for a, b in radii]


def shape(color, name, side, rng):
    """One shape of one colour on one side."""
    y, x = np.mgrid[:SIZE, :SIZE]
    cy, cx = rng.uniform(9, SIZE - 9), rng.uniform(6, 10) + (16 if side == "right" else 0)
    dy, dx = np.abs(y - cy), np.abs(x - cx)
    inside = {
        "disk": dy**2 + dx**2 < 30,
        "bar": (dy < 2) & (dx < 7),
        "column": (dx < 2) & (dy < 8),
    }[name]
    image = rng.integers(0, 60, (SIZE, SIZE, 3)).astype(np.uint8)
    image[inside] = COLORS[color]
    return image


CAPTIONS = [f"a {c} {s} on the {p}" for c in COLORS for s in SHAPES for p in SIDES]


def captioned(n, seed):
    """Pictures with the caption that is true of them."""
    rng = np.random.default_rng(seed)
    words = [
        (list(COLORS)[rng.integers(3)], SHAPES[rng.integers(3)], SIDES[rng.integers(2)])
        for _ in range(n)
    ]
    return [(shape(*w, rng), f"a {w[0]} {w[1]} on the {w[2]}") for w in words]


@pytest.fixture(scope="session")
def untrained():
    return small_reader([LARGER, DESCRIBE, *CAPTIONS, "yes no"])


@pytest.fixture(scope="session")
def judge():
    """Knows which disk is larger."""
    reader = small_reader([LARGER, "yes no"])
    turns = [Turn((a, b), LARGER, "yes" if y else "no") for a, b, y in disk_pairs(600, 0)]
    rng = np.random.default_rng(0)
    fit_reader(reader, turns, steps=200, learning_rate=2e-3, generator=rng)
    return reader


@pytest.fixture(scope="session")
def captioner():
    """Knows what it sees."""
    reader = small_reader([DESCRIBE, *CAPTIONS])
    turns = [Turn((image,), DESCRIBE, text) for image, text in captioned(1500, 0)]
    rng = np.random.default_rng(0)
    fit_reader(reader, turns, steps=330, learning_rate=3e-3, generator=rng)
    return reader
