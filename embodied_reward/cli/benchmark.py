"""Run one of the library's own benchmarks.

er benchmark trap        which rewards make a policy hover at high progress instead of finishing
er benchmark headline    one demonstration, 150 rollouts: learned reward beside honest baselines
"""

import importlib

from embodied_reward.errors import ConfigError, did_you_mean

# name -> module with `main(argv)`; imported only when asked for.
BENCHMARKS = {
    "trap": "embodied_reward.cli.trap",
    "headline": "embodied_reward.cli.headline",
}


def main(argv: list[str]) -> int:
    """Run `er benchmark NAME`. Raises ConfigError with the nearest names."""
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip() + "\n\ner benchmark NAME --help lists its fields.")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in BENCHMARKS:
        raise ConfigError(f"unknown benchmark '{name}'; {did_you_mean(name, BENCHMARKS)}")
    return importlib.import_module(BENCHMARKS[name]).main(rest)
