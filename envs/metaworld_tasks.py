"""What each of the fifty Meta-World v3 tasks asks for, in words, and how its cameras are hung."""

from .parts import PartNames
from .rendering import Camera

DESCRIPTIONS: dict[str, str] = {
    "assembly-v3": "pick up the wrench and put its ring over the peg",
    "basketball-v3": "put the ball into the basket",
    "bin-picking-v3": "move the cube from one bin into the other",
    "box-close-v3": "put the lid on the box",
    "button-press-topdown-v3": "press the button from above",
    "button-press-topdown-wall-v3": "reach over the wall and press the button from above",
    "button-press-v3": "press the button on the front of the box",
    "button-press-wall-v3": "reach around the wall and press the button",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine to the goal",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "lift the wrench off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "lock the door by turning its latch",
    "door-open-v3": "open the door by its handle",
    "door-unlock-v3": "unlock the door by turning its latch",
    "drawer-close-v3": "push the drawer closed",
    "drawer-open-v3": "pull the drawer open by its handle",
    "faucet-close-v3": "turn the faucet closed",
    "faucet-open-v3": "turn the faucet open",
    "hammer-v3": "hammer the nail into the block",
    "hand-insert-v3": "put the gripper into the hole in the table",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "insert the peg into the hole sideways",
    "peg-unplug-side-v3": "pull the peg out of the socket sideways",
    "pick-out-of-hole-v3": "lift the puck out of the hole and bring it to the goal",
    "pick-place-v3": "pick up the puck and bring it to the goal",
    "pick-place-wall-v3": "pick up the puck and bring it over the wall to the goal",
    "plate-slide-back-side-v3": "slide the plate sideways out of the cabinet",
    "plate-slide-back-v3": "slide the plate back out of the cabinet",
    "plate-slide-side-v3": "slide the plate sideways into the cabinet",
    "plate-slide-v3": "slide the plate into the cabinet",
    "push-back-v3": "pull the puck back to the goal",
    "push-v3": "push the puck to the goal",
    "push-wall-v3": "push the puck around the wall to the goal",
    "reach-v3": "move the gripper to the goal",
    "reach-wall-v3": "move the gripper over the wall to the goal",
    "shelf-place-v3": "put the block on the shelf",
    "soccer-v3": "push the ball into the goal",
    "stick-pull-v3": "hook the thermos with the stick and pull it to the goal",
    "stick-push-v3": "push the thermos to the goal with the stick",
    "sweep-into-v3": "sweep the block into the hole",
    "sweep-v3": "sweep the block off the table",
    "window-close-v3": "slide the window closed",
    "window-open-v3": "slide the window open",
}

# All tasks share the robot and the table; whatever else stands there is the task's own.
PARTS_OF = PartNames(
    background=("tablelink", "RetainingWall", "mocap"),
    arm=("base",),
    gripper=("hand",),
    goal=("goal*",),
)

# Meta-World hangs its corner cameras upside down (gravity points up in their pictures). corner2
# stands closer than in the model, at the position LeRobot's environment and data sets use, so
# that objects are more than a few pixels tall and pictures are interchangeable.
_MOUNTED = {
    "corner": Camera("corner", half_turn=True),
    "corner2": Camera("corner2", half_turn=True, position=(0.75, 0.075, 0.7)),
    "corner3": Camera("corner3", half_turn=True),
}


def camera(view: str) -> Camera:
    """Return how an upright picture of `view` is taken."""
    return _MOUNTED.get(view, Camera(view))
