"""What may vary, how strongly, and in which of the two halves of the world."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from embodied_reward.errors import EnvError, did_you_mean

SPLITS = ("train", "test")

LOOKS = (
    "texture",
    "video",
    "light",
    "robot_colour",
    "object_colour",
    "fixture_colour",
    "distractors",
    "camera",
)
"""Task-irrelevant: they change pictures and nothing else."""

DYNAMICS = ("mass", "friction", "damping", "gravity", "actuator", "robot", "object_size")
"""Task-relevant: they change what actions do."""

FACTORS = (*LOOKS, *DYNAMICS)


@dataclass(frozen=True)
class Variation:
    """How far a scene strays from the original: one level in [0, 1] per factor, 0 is exactly it."""

    texture: float = 0.0  # patterns on floor, table and walls, and in the sky
    video: float = 0.0  # the same, moving from decision to decision
    light: float = 0.0  # direction, weakness and tint of the light
    robot_colour: float = 0.0  # colours of the robot
    object_colour: float = 0.0  # colours of what the robot can move
    fixture_colour: float = 0.0  # colours of what stands still; never of goals and marks
    distractors: float = 0.0  # things that only seem to lie about, up to 8
    camera: float = 0.0  # where cameras stand (up to 12 degrees about the scene) and look
    mass: float = 0.0  # masses of objects, times or over up to 4
    friction: float = 0.0  # sliding friction, times or over up to 4
    damping: float = 0.0  # damping and dry friction of objects' joints, times or over up to 4
    gravity: float = 0.0  # gravity, times or over up to 1.6
    actuator: float = 0.0  # strength of the robot's actuators, times or over up to 2.5
    robot: float = 0.0  # masses, damping and lag of the robot, times or over up to 4
    object_size: float = 0.0  # size of loose objects, times or over up to 1.35
    seed: int = 0  # another seed is another world of variants
    split: str = "train"  # train or test; the two never share a variant
    variants: int = 0  # how many different variants; 0 draws a new one at every reset
    variant: int = -1  # always this one of them; -1 draws one at every reset

    def __post_init__(self) -> None:
        for name in FACTORS:
            level = getattr(self, name)
            if isinstance(level, bool) or not 0.0 <= level <= 1.0:
                raise EnvError(f"variation '{name}' must be a level in [0, 1], got {level}")
        if self.split not in SPLITS:
            raise EnvError(f"unknown split '{self.split}'; {did_you_mean(self.split, SPLITS)}")
        if self.seed < 0 or self.variants < 0:
            raise EnvError(
                "seed and variants of a variation must be at least 0, "
                f"got {self.seed} and {self.variants}"
            )
        if self.variant < -1 or (self.variants and self.variant >= self.variants):
            last = self.variants - 1 if self.variants else "any number"
            raise EnvError(f"variant must be -1 (draw one) or 0 to {last}, got {self.variant}")

    @property
    def levels(self) -> Mapping[str, float]:
        """Factor -> level, of those above 0."""
        return {name: level for name in FACTORS if (level := getattr(self, name)) > 0.0}

    @property
    def looks(self) -> Mapping[str, float]:
        """The levels above 0 that change pictures only."""
        return {name: level for name, level in self.levels.items() if name in LOOKS}

    @property
    def dynamics(self) -> Mapping[str, float]:
        """The levels above 0 that change what actions do."""
        return {name: level for name, level in self.levels.items() if name in DYNAMICS}


def checked_names(levels: Mapping[str, float]) -> Mapping[str, float]:
    """Return `levels`; raises EnvError for a name that is no field of `Variation`."""
    known = [field.name for field in fields(Variation)]
    for name in levels:
        if name not in known:
            raise EnvError(f"unknown variation '{name}'; {did_you_mean(name, known)}")
    return levels
