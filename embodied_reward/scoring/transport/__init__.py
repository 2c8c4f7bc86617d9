"""Ways into the scoring core from other processes and machines; bytes only, never objects."""
