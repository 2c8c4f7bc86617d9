"""`er <verb> [--config_path=x.yaml] [--preset=name] [--group.field=value]`.

This module must stay light: `er --help` imports neither torch nor MuJoCo.
"""

import importlib
import os
import sys

from embodied_reward.errors import EmbodiedRewardError, did_you_mean

VERBS = {
    "quickstart": "the whole road in ten minutes: demos, reward model, policy",
    "doctor": "check this machine and print the command that mends each problem",
    "collect": "record scripted-expert episodes of a simulated task as a LeRobot v3 dataset",
    "variations": "draw what varies in an environment, and how strongly, on one sheet",
    "data": "look at a dataset (er data inspect PATH), convert it, recover a killed recording",
    "label-preferences": "ask a person which episodes are better, on a local web page",
    "train-reward": "train a reward model from demonstrations",
    "train-scorer": "train a preference reward model of pictures or clips",
    "guard-scorer": "teach a scorer not to pay for broken pictures",
    "train-judge": "fine-tune a vision-language model to judge pictures or clips",
    "eval-reward": "measure a reward model beside trivial baselines",
    "audit-reward": "where reward models look: saliency on gripper and objects, beside chance",
    "label": "write a reward model's progress of every frame beside a dataset, for LeRobot",
    "score": "score pictures and clips with any scorer or reward model",
    "report": "one HTML page about a trained model: metrics, episodes, failures, hacking probes",
    "calibrate-success": "fit a success detector's threshold to a false-positive rate",
    "train-policy": "train SAC or PPO on a learned or task reward",
    "rollout": "record, evaluate or fine-tune on a LeRobot robot, real or simulated",
    "eval-policy": "roll a saved policy out: success rate, videos with reward curves",
    "serve": "serve trained scorers over HTTP and shared memory, batched and cached",
    "benchmark": "run one of our benchmarks (er benchmark trap)",
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit status. Errors a user can cause print as one line."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _main(argv)
    except BrokenPipeError:
        # `er ... | head` closed the pipe; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if argv[0] == "--version":
        from embodied_reward import __version__

        print(__version__)
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        print(f"er: unknown verb '{verb}'; {did_you_mean(verb, VERBS)}", file=sys.stderr)
        return 2
    return _run(verb, rest)


def _run(verb: str, rest: list[str]) -> int:
    # Nothing of ours needs TensorFlow, and importing it costs seconds where it is installed.
    os.environ.setdefault("USE_TF", "0")
    try:
        module = importlib.import_module(f"embodied_reward.cli.{verb.replace('-', '_')}")
        return module.main(rest) or 0
    except EmbodiedRewardError as error:
        print(f"er {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ner {verb}: interrupted", file=sys.stderr)
        return 130


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "usage: er <verb> [--preset=NAME] [--config_path=FILE] [--group.field=value ...]",
            "",
            *lines,
            "",
            "er <verb> --help lists the fields of one verb with their defaults.",
        ]
    )
