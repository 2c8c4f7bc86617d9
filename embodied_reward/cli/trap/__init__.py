"""`er benchmark trap`: which rewards make a policy hover at high progress instead of finishing.

er benchmark trap [--seeds=5] [--steps=N] [--output_dir=DIR] [--jobs=N]

First the tabular chain: from which success probability on is trying better than hovering, per
reward. Then the picture version: a `dopamine` model learns progress from demonstrations of
`trap/insert`, Stable-Baselines3's DQN learns under six rewards made of it, and exact policy
evaluation reports success, hovering and the gap to the optimum. Finished parts are kept: the
same command with the same --output_dir continues.
"""

from embodied_reward.cli.trap.run import main

__all__ = ["main"]
