"""Rendered pictures with a known preference, as files: what `er train-scorer` is tested on.

A picture holds a disc on a plain background. People prefer the picture whose disc is higher, as
if it were lifted. Colours, size and horizontal place, hence brightness, contrast and file size, are
drawn independently of that.
"""

import json
import sys
from pathlib import Path

import numpy as np
import PIL.Image


def picture(rng, height, size=64):
    """Draw a disc whose centre is `height` in [0, 1] of the way up."""
    background, colour = rng.integers(0, 256, (2, 3))
    while np.abs(background.astype(int) - colour.astype(int)).max() < 100:
        colour = rng.integers(0, 256, 3)
    radius = int(rng.integers(6, 11))
    x, y = rng.integers(12, size - 12), 12 + (1 - height) * (size - 24)
    rows, columns = np.mgrid[:size, :size]
    inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return np.where(inside[..., None], colour, background).astype(np.uint8)


def heights(rng, count, gap=0.15):
    """Draw `count` heights, the first at least `gap` above every other."""
    while True:
        drawn = rng.random(count)
        best = int(drawn.argmax())
        rest = np.delete(drawn, best)
        if drawn[best] - rest.max() >= gap:
            return np.concatenate([[drawn[best]], rest])


def write(folder, name, frame):
    folder.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(frame).save(folder / name)
    return name


def pairs_file(folder, count, seed=0, name="prefs.jsonl"):
    """Write `count` lines chosen/rejected."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        high, low = heights(rng, 2)
        chosen = write(folder, f"{i}_a.png", picture(rng, high))
        rejected = write(folder, f"{i}_b.png", picture(rng, low))
        lines.append({"prompt": "lift it", "chosen": chosen, "rejected": rejected})
    return write_lines(folder / name, lines)


def labels_file(folder, count, seed=0):
    """Write `count` lines with one picture and its label."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        label = i % 2
        height = rng.uniform(0.6, 1.0) if label else rng.uniform(0.0, 0.5)
        name = write(folder, f"{i}.png", picture(rng, height))
        lines.append({"prompt": f"task {i % 3}", "image": name, "label": label})
    return write_lines(folder / "labels.jsonl", lines)


def sets_file(folder, count, size=4, seed=0):
    """Write `count` lines with `size` pictures, the best at a random place."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        drawn, best = heights(rng, size), int(rng.integers(size))
        order = np.insert(drawn[1:], best, drawn[0])
        names = [write(folder, f"{i}_{j}.png", picture(rng, h)) for j, h in enumerate(order)]
        lines.append({"images": names, "best": best})
    return write_lines(folder / "sets.jsonl", lines)


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


if __name__ == "__main__":
    root = Path(sys.argv[1])
    print(pairs_file(root / "pairs", 400), labels_file(root / "labels", 400))
    print(sets_file(root / "sets", 200))
