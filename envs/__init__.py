"""Environments of embodied-reward, imported as `embodied_reward.envs`."""

if __name__ != "embodied_reward.envs":
    raise ImportError(f"imported as {__name__!r}; write `import embodied_reward.envs` instead")
