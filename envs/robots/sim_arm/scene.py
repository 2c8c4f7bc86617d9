"""The arm's scene of primitive shapes: table, arm, ball or puck, two cameras.

The arm has the SO-101's five joints and gripper, of about its size. At angle zero the upper arm
points up, forearm and hand point ahead.
"""

from dataclasses import dataclass

import numpy as np

from embodied_reward.types import Float64

MOTORS = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
RANGES = ((-80, 80), (-65, 80), (-45, 105), (-35, 100), (-95, 95), (0, 100))
"""Mechanical stops of the motors, in their units; the limits' file has to lie inside."""
HOME = (0.0, -20.0, 40.0, 50.0, 0.0, 5.0)
GRIP = np.deg2rad(60.0) / 100.0  # of the jaw, per unit of the gripper [rad]
VIEWS = ("front", "side")
TIMESTEP = 0.004  # [s]
BALL = 0.022  # radius of the ball, which lies on the table [m]
NEAR = 0.03  # the tip touches the ball within this distance [m]
ON_MARK = 0.03  # the puck's middle is on the mark within this distance [m]
PUCK, TALL = 0.03, 0.018  # radius and half the height of the puck [m]

_FLAT = 'contype="0" conaffinity="0" mass="0"'
_BLUE, _DARK, _GREY = ".15 .35 .8 1", ".16 .17 .2 1", ".75 .76 .78 1"


@dataclass(frozen=True)
class Task:
    """What is to be done.

    Attributes:
        words: for datasets and language-conditioned models.
        numbers: names of what a tracker sees of the scene, beside the joints.
        things: bodies of the scene, as XML.
    """

    words: str
    numbers: tuple[str, ...]
    things: str


TASKS = {
    "reach": Task(
        "touch the ball",
        ("ball.x", "ball.y", "ball.z"),
        f'<body name="ball" mocap="true"><geom name="ball" type="sphere" size="{BALL}" {_FLAT} '
        'rgba=".95 .4 .1 1"/></body>',
    ),
    "push": Task(
        "push the puck onto the mark",
        ("puck.x", "puck.y", "mark.x", "mark.y"),
        f'<body name="mark" mocap="true"><geom name="mark" type="cylinder" size=".05 .001" {_FLAT} '
        'rgba=".3 .75 .35 1"/></body>'
        f'<body name="puck"><freejoint/><geom name="puck" type="cylinder" size="{PUCK} {TALL}" '
        'mass=".08" friction=".5" rgba=".95 .4 .1 1"/></body>',
    ),
}


def scene_xml(task: str) -> str:
    """Return the MuJoCo model of a task of `TASKS`."""
    return f"""
<mujoco model="er_sim_arm">
  <compiler angle="radian"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast"/>
  <visual>
    <headlight ambient=".45 .45 .45" diffuse=".4 .4 .4" specular="0 0 0"/>
    <quality offsamples="4" numslices="12" numstacks="8"/>
    <map znear=".02"/>
  </visual>
  <worldbody>
    <light pos=".4 -.6 1.5" dir="-.1 .3 -1" diffuse=".2 .2 .2" directional="true"/>
    <body name="middle" pos=".22 0 .07"/>
    <camera name="front" pos=".78 0 .42" mode="targetbody" target="middle" fovy="42"/>
    <camera name="side" pos=".2 -.62 .38" mode="targetbody" target="middle" fovy="42"/>
    <geom name="ground" type="plane" size="40 40 .1" pos="0 0 -.3" rgba=".42 .45 .48 1" {_FLAT}/>
    <geom name="table" type="box" size=".3 .38 .03" pos=".2 0 -.03" rgba=".82 .77 .68 1"/>
    {_arm()}
    {TASKS[task].things}
  </worldbody>
  <actuator>{_servos()}</actuator>
</mujoco>
"""


def _arm() -> str:
    hinge = 'armature=".02" damping=".4"'
    return f"""
    <geom name="foot" type="cylinder" size=".045 .03" pos="0 0 .03" rgba="{_DARK}"/>
    <body name="turntable" pos="0 0 .06" gravcomp="1">
      <joint name="shoulder_pan" axis="0 0 1" {hinge}/>
      <geom type="box" size=".035 .03 .028" pos=".012 0 .028" rgba="{_BLUE}" mass=".2"/>
      <body name="upper" pos=".03 0 .055" gravcomp="1">
        <joint name="shoulder_lift" axis="0 1 0" {hinge}/>
        <geom type="capsule" size=".017" fromto="0 0 0 0 0 .116" rgba="{_GREY}" mass=".15"/>
        <body name="fore" pos="0 0 .116" gravcomp="1">
          <joint name="elbow_flex" axis="0 1 0" {hinge}/>
          <geom type="capsule" size=".015" fromto="0 0 0 .135 0 0" rgba="{_BLUE}" mass=".12"/>
          <body name="wrist" pos=".135 0 0" gravcomp="1">
            <joint name="wrist_flex" axis="0 1 0" {hinge}/>
            <geom type="box" size=".024 .016 .016" pos=".024 0 0" rgba="{_DARK}" mass=".06"/>
            <body name="hand" pos=".05 0 0" gravcomp="1">
              <joint name="wrist_roll" axis="1 0 0" {hinge}/>
              <geom type="box" size=".022 .02 .014" pos=".02 0 0" rgba="{_GREY}" mass=".05"/>
              <geom name="finger" type="box" size=".036 .006 .008" pos=".074 -.007 0"
                rgba="{_DARK}" mass=".02" friction="1"/>
              <site name="tip" pos=".11 0 0" size=".004"/>
              <body name="jaw" pos=".04 .007 0" gravcomp="1">
                <joint name="gripper" axis="0 0 1" armature=".004" damping=".05"/>
                <geom name="jaw" type="box" size=".036 .006 .008" pos=".034 0 0"
                  rgba="{_DARK}" mass=".02" friction="1"/>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>"""


def _servos() -> str:
    stiff = {"gripper": (4.0, 2.0)}
    lines = []
    for name in MOTORS:
        kp, force = stiff.get(name, (60.0, 12.0))
        lines.append(
            f'<position name="{name}" joint="{name}" kp="{kp}" dampratio="1" '
            f'forcerange="{-force} {force}"/>'
        )
    return "".join(lines)


def place(task: str, model: object, data: object, rng: np.random.Generator) -> None:
    """Put the arm into its home pose and draw where the task's things are."""
    from ...rendering import load_mujoco

    mujoco = load_mujoco()
    mujoco.mj_resetData(model, data)
    data.qpos[:6] = to_radians(np.array(HOME))  # type: ignore[attr-defined]
    data.ctrl[:] = data.qpos[:6]  # type: ignore[attr-defined]
    away, side = rng.uniform(0.2, 0.28), rng.uniform(-0.5, 0.5)
    spot = np.array([away * np.cos(side), away * np.sin(side)])
    if task == "reach":
        data.mocap_pos[0] = [*spot, BALL]  # type: ignore[attr-defined]
    else:
        data.qpos[6:13] = [*spot, TALL, 1, 0, 0, 0]  # type: ignore[attr-defined]
        turn = side + rng.choice([-1.0, 1.0]) * rng.uniform(0.25, 0.35)
        data.mocap_pos[0] = [0.25 * np.cos(turn), 0.25 * np.sin(turn), 0.001]  # type: ignore[attr-defined]
    mujoco.mj_forward(model, data)


def to_radians(motors: Float64) -> Float64:
    """Return joint angles Float64["n"] [rad] of motor positions in the robot's units."""
    return np.array([*np.deg2rad(motors[:5]), motors[5] * GRIP])


def to_motors(angles: Float64) -> Float64:
    """Return motor positions in the robot's units of joint angles Float64["n"] [rad]."""
    return np.array([*np.rad2deg(angles[:5]), angles[5] / GRIP])
