"""The planar arena: walls, pucks, four agents; nothing but boxes, spheres and cylinders.

No gravity and no floor contact: joints move in the plane and damping stands for the floor's
friction, so a simulated second costs next to nothing. Pucks collide as spheres, which MuJoCo
solves in closed form, and are drawn as discs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ARENA = 1.0  # half the side of the square between the walls [m]
PUCK = 0.09  # radius [m]
BLADE = 0.03  # half the thickness of a stick [m]
COLOURS = (".16 .42 .85 1", ".95 .72 .1 1", ".62 .25 .75 1")
TIMESTEP = 0.01  # [s]
CAMERAS = ("top", "oblique")


@dataclass(frozen=True)
class Embodiment:
    """An agent: a stick of some length, or two fingers.

    Attributes:
        half: half the length of its blade [m], across its heading.
        gripper: has fingers, and a fourth action that closes them.
    """

    half: float
    gripper: bool = False


EMBODIMENTS = {
    "Gripper": Embodiment(0.15, gripper=True),
    "ShortStick": Embodiment(0.15),
    "MediumStick": Embodiment(0.3),
    "LongStick": Embodiment(0.6),
}
FINGER = 0.24  # length of the fingers [m]
OPEN = 0.095  # travel of a finger from its inner stop, where it would be inside a puck [m]

_FLAT = 'contype="0" conaffinity="0" mass="0"'


def planar_xml(embodiment: str, pucks: int, marks: Sequence[str] = ()) -> str:
    """Return the arena with one agent and some pucks.

    Args:
        embodiment: a name of `EMBODIMENTS`.
        pucks: how many, at most three.
        marks: flat geoms on the floor, as XML.
    """
    discs = "".join(_puck(i) for i in range(pucks))
    return f"""
<mujoco model="planar">
  <option timestep="{TIMESTEP}" gravity="0 0 0" integrator="implicitfast"/>
  <visual>
    <headlight ambient=".42 .42 .42" diffuse=".4 .4 .4" specular="0 0 0"/>
    <quality offsamples="4"/>
  </visual>
  <worldbody>
    <light pos="-1 -1 4" dir=".25 .25 -1" diffuse=".15 .15 .15" directional="true"/>
    <camera name="top" pos="0 0 6" fovy="20.9"/>
    <camera name="oblique" pos="0 -2.3 2.3" xyaxes="1 0 0 0 .72 .69" fovy="44"/>
    <geom name="ground" type="plane" size="9 9 .1" pos="0 0 -.05" rgba=".5 .52 .55 1" {_FLAT}/>
    <geom name="floor" type="box" size="1 1 .02" pos="0 0 -.02" rgba=".9 .88 .84 1" {_FLAT}/>
    {"".join(marks)}
    {_walls()}
    {_agent(EMBODIMENTS[embodiment])}
    {discs}
  </worldbody>
  <actuator>{_actuators(EMBODIMENTS[embodiment])}</actuator>
</mujoco>
"""


def strip(name: str, low: float, rgba: str) -> str:
    """Return a mark from wall to wall between y = `low` [m] and the upper wall."""
    half = (ARENA - low) / 2
    return (
        f'<geom name="{name}" type="box" size="{ARENA} {half} .003" '
        f'pos="0 {low + half} .003" rgba="{rgba}" {_FLAT}/>'
    )


def disc(name: str, radius: float, rgba: str) -> str:
    """Return a round mark whose body can be moved about: a mocap body of the same name."""
    return (
        f'<body name="{name}" mocap="true"><geom name="{name}" type="cylinder" '
        f'size="{radius} .004" pos="0 0 .004" rgba="{rgba}" {_FLAT}/></body>'
    )


def _walls() -> str:
    sides = (("1 0", "y", -90), ("-1 0", "y", 90), ("0 1", "x", 90), ("0 -1", "x", -90))
    stops = "".join(
        f'<geom type="plane" size="9 9 .1" pos="{at} 0" euler="{"0 " * (axis == "y")}{turn} '
        f'0{" 0" * (axis == "x")}" group="3"/>'
        for at, axis, turn in sides
    )
    seen = "".join(
        f'<geom name="wall{i}" type="box" pos="{x} {y} .03" size="{w} {h} .05" '
        f'rgba=".36 .3 .26 1" {_FLAT}/>'
        for i, (x, y, w, h) in enumerate(
            ((1.03, 0, 0.03, 1.06), (-1.03, 0, 0.03, 1.06), (0, 1.03, 1, 0.03), (0, -1.03, 1, 0.03))
        )
    )
    return stops + seen


def _plane_joints(name: str, *, turn: bool, damping: float) -> str:
    slides = "".join(
        f'<joint name="{name}_{axis}" type="slide" axis="{way}" damping="{damping}"/>'
        for axis, way in (("x", "1 0 0"), ("y", "0 1 0"))
    )
    # The armature keeps the turn's drive from overshooting where its torque is clipped.
    return slides + f'<joint name="{name}_turn" axis="0 0 1" armature=".3"/>' * turn


def _puck(i: int) -> str:
    return (
        f'<body name="puck{i}" pos="0 0 .06">{_plane_joints(f"puck{i}", turn=False, damping=4)}'
        f'<geom type="sphere" size="{PUCK}" mass=".2" friction=".5" group="3"/>'
        f'<geom name="puck{i}" type="cylinder" size="{PUCK} .05" rgba="{COLOURS[i]}" {_FLAT}/>'
        "</body>"
    )


def _agent(body: Embodiment) -> str:
    steel, dark = ".2 .22 .25 1", ".75 .2 .15 1"
    size = f"{BLADE} {body.half} .05"
    blade = f'<geom name="blade" type="box" size="{size}" mass="1" friction=".5" rgba="{steel}"/>'
    hub = (
        f'<geom name="hub" type="cylinder" size=".075 .06" pos="-.075 0 0" rgba="{dark}" {_FLAT}/>'
    )
    fingers = "".join(_finger(side) for side in ("left", "right")) if body.gripper else ""
    joints = _plane_joints("agent", turn=True, damping=0)
    return f'<body name="agent" pos="0 0 .06">{joints}{blade}{hub}{fingers}</body>'


def _finger(side: str) -> str:
    sign = 1 if side == "left" else -1
    return (
        f'<body name="{side}" pos="{FINGER / 2 + BLADE} {sign * 0.08} 0">'
        f'<joint name="{side}" type="slide" axis="0 {sign} 0" range="0 {OPEN}" '
        'limited="true" damping="2"/>'
        f'<geom name="{side}" type="box" size="{FINGER / 2} .02 .045" mass=".1" friction="1" '
        'rgba=".2 .22 .25 1"/></body>'
    )


def _actuators(body: Embodiment) -> str:
    drives = "".join(
        f'<velocity joint="agent_{axis}" kv="{gain}" forcerange="-{most} {most}"/>'
        for axis, gain, most in (("x", 80, 40), ("y", 80, 40), ("turn", 20, 20))
    )
    grips = "".join(
        f'<position joint="{side}" kp="200" ctrlrange="0 {OPEN}" forcerange="-8 8"/>'
        for side in ("left", "right")
    )
    return drives + grips * body.gripper
