"""Run one of our own verbs to its end, continuing what an earlier run left behind."""

from pathlib import Path

from embodied_reward import cli
from embodied_reward.errors import EmbodiedRewardError


def run_to_end(verb: str, arguments: list[str], folder: Path) -> None:
    """Run `er VERB ARGUMENTS` into `folder`, which may hold an interrupted run of it.

    Raises:
        EmbodiedRewardError: the verb failed; its message was printed.
    """
    resumed = verb == "collect" or (folder / "config.yaml").is_file()
    arguments = [*arguments, f"--output_dir={folder}", f"--resume={str(resumed).lower()}"]
    print(f"$ er {verb} {' '.join(arguments)}", flush=True)
    if cli.main([verb, *arguments]) != 0:
        raise EmbodiedRewardError(f"'er {verb}' failed; its message is above")
