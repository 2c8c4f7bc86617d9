"""`er benchmark headline`: from one demonstration to a policy that works, in 150 rollouts.

er benchmark headline --tasks=drawer-open-v3,door-open-v3 --seeds=0,1,2 --jobs=2
    --conditions=learned,success,oracle,absolute,self_imitation,none
    --output_dir=outputs/headline

Per task and seed, one demonstration of the scripted expert is recorded, a policy is cloned from it
and a reward model is trained on it. The clone is then fine-tuned by residual SAC for at most
`--rollouts` episodes under every condition, and its last policy is evaluated on fresh scenes.

Finished cells (task, seed, condition) are kept: the same command with the same --output_dir goes
on where it was stopped. --known=RESULTS.json takes the cells of an earlier study over.
"""

from embodied_reward.cli.headline.run import main

__all__ = ["main"]
