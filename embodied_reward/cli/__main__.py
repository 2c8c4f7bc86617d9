"""`python -m embodied_reward.cli` is `er`."""

import sys

from embodied_reward.cli import main

if __name__ == "__main__":
    sys.exit(main())
