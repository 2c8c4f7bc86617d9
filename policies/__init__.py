"""Policies of embodied-reward, imported as `embodied_reward.policies`."""

if __name__ != "embodied_reward.policies":
    raise ImportError(f"imported as {__name__!r}; write `import embodied_reward.policies` instead")
