"""The table: a hand on three slides with two fingers, three cameras, and what a task puts there.

The hand carries no arm: nothing hides the table but the hand itself and the task's own screens,
so what a camera cannot see is decided by the scene and not by a robot's elbows.
"""

REACH = 0.38  # the hand's fingertips stay within this distance of the middle, per axis [m]
HIGH = 0.4  # ... and below this height [m]
GRIP = 0.03  # travel of each finger [m]
TIMESTEP = 0.005  # [s]
PEG = 0.012, 0.04  # half the width and half the length of a held peg [m]
PEG_TIP = 0.06  # how far it reaches below the fingertips [m]

_FLAT = 'contype="0" conaffinity="0" mass="0"'


def table_xml(things: str, *, held: str = "", low: float = 0.005) -> str:
    """Return the scene.

    Args:
        things: bodies and geoms that stand on the table, as XML.
        held: geoms fixed to the hand.
        low: least height of the fingertips [m].
    """
    return f"""
<mujoco model="tabletop">
  <option timestep="{TIMESTEP}" integrator="implicitfast"/>
  <visual>
    <headlight ambient=".42 .42 .42" diffuse=".4 .4 .4" specular="0 0 0"/>
    <quality offsamples="4" numslices="14" numstacks="8"/>
    <map znear=".02"/>
  </visual>
  <worldbody>
    <light pos="-.5 -1 2" dir=".25 .5 -1" diffuse=".15 .15 .15" directional="true"/>
    <body name="middle" pos="0 .02 .09"/>
    <camera name="front" pos="0 -1.1 .55" mode="targetbody" target="middle" fovy="31"/>
    <camera name="side" pos="1.1 .05 .5" mode="targetbody" target="middle" fovy="36"/>
    <camera name="top" pos="0 .01 1.4" fovy="31"/>
    <geom name="ground" type="plane" size="60 60 .1" pos="0 0 -.4" rgba=".4 .43 .46 1" {_FLAT}/>
    <geom name="table" type="box" size=".46 .46 .04" pos="0 0 -.04" rgba=".8 .74 .64 1"/>
    {_hand(held, low)}
    {things}
  </worldbody>
  <actuator>
    <velocity joint="hand_x" kv="200" forcerange="-40 40"/>
    <velocity joint="hand_y" kv="200" forcerange="-40 40"/>
    <velocity joint="hand_z" kv="200" forcerange="-40 40"/>
    <position joint="left" kp="200" ctrlrange="0 {GRIP}" forcerange="-10 10"/>
    <position joint="right" kp="200" ctrlrange="0 {GRIP}" forcerange="-10 10"/>
  </actuator>
</mujoco>
"""


def fixed(name: str, size: str, pos: str, rgba: str, *, solid: bool = True) -> str:
    """Return a box that stands still; not `solid`, it is only seen."""
    return (
        f'<geom name="{name}" type="box" size="{size}" pos="{pos}" rgba="{rgba}" '
        f"{'' if solid else _FLAT}/>"
    )


def mark(name: str, shape: str, rgba: str) -> str:
    """Return something to see but not to touch, moved as the mocap body of its name."""
    geom = f'<geom name="{name}" {shape} rgba="{rgba}" {_FLAT}/>'
    return f'<body name="{name}" mocap="true">{geom}</body>'


def _hand(held: str, low: float) -> str:
    reach = f'limited="true" range="-{REACH} {REACH}"'
    grey, dark = ".24 .26 .3 1", ".75 .2 .15 1"
    return f"""
    <body name="hand" gravcomp="1">
      <joint name="hand_x" type="slide" axis="1 0 0" {reach}/>
      <joint name="hand_y" type="slide" axis="0 1 0" {reach}/>
      <joint name="hand_z" type="slide" axis="0 0 1" limited="true" range="{low} {HIGH}"/>
      <geom name="palm" type="box" size=".055 .022 .014" pos="0 0 .074" mass=".4" rgba="{grey}"/>
      <geom name="wrist" type="cylinder" size=".026 .03" pos="0 0 .118" mass=".2" rgba="{dark}"/>
      {held}
      {_finger("left", 1)}{_finger("right", -1)}
    </body>"""


def _finger(name: str, sign: int) -> str:
    return (
        f'<body name="{name}" pos="{sign * 0.009} 0 .03" gravcomp="1">'
        f'<joint name="{name}" type="slide" axis="{sign} 0 0" limited="true" range="0 {GRIP}" '
        'damping="2"/>'
        f'<geom name="{name}" type="box" size=".009 .011 .03" mass=".05" friction="1" '
        'rgba=".24 .26 .3 1"/></body>'
    )
