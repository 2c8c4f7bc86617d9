"""A head made of several heads on one trunk, so that the whole is served as one scorer."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from embodied_reward.errors import ConfigError
from embodied_reward.scoring.composition import Rule, combine
from embodied_reward.scoring.scorer import Head, Items, Output
from embodied_reward.scoring.status import Status
from embodied_reward.types import UInt8


class ComposedHead(Head):
    """Apply a rule of `scoring.composition` to the scores of two or more heads.

    Args:
        heads: name -> head, in the order of the rule's arguments; all on the same trunk.
        rule: see `rule_named`.

    `Output.dims` holds the parts' scores. An item fails if any part fails.
    """

    def __init__(self, heads: Mapping[str, Head], rule: Rule) -> None:
        super().__init__()
        if len(heads) < 2:
            raise ConfigError(f"a composed head needs two parts or more, got {list(heads)}")
        self.parts = nn.ModuleDict(dict(heads))
        self.rule = rule
        self.dim_names = tuple(heads)
        self.groupwise = any(h.groupwise for h in heads.values())

    def forward(self, items: Items) -> Output:
        """See the base class."""
        outputs = {name: head(items) for name, head in self.parts.items()}
        scores = torch.stack([o.score.detach().double() for o in outputs.values()], dim=1)
        columns = list(scores.cpu().numpy().T)
        status = [status_of(o) for o in outputs.values()]
        value, whole, detail = combine(self.rule, self.dim_names, columns, status)
        for item in detail:
            causes = [o.detail[item] for o in outputs.values() if item in o.detail]
            detail[item] = ": ".join([detail[item], *causes[:1]])
        return Output(
            score=torch.from_numpy(value).float(),
            dims=scores.float(),
            status=whole,
            detail=detail,
        )


class SigmoidHead(Head):
    """Map another head's unbounded score to (0, 1), as the rules of composition need it.

    Of a preference score this is the Bradley-Terry probability of beating the average training
    picture, as heads are saved with zero mean.
    """

    score_range = (0.0, 1.0)

    def __init__(self, base: Head) -> None:
        super().__init__()
        self.base = base
        self.dim_names, self.groupwise = base.dim_names, base.groupwise

    def forward(self, items: Items) -> Output:
        """See the base class; spreads stay those of the unbounded score and are left out."""
        output = self.base(items)
        return Output(
            score=torch.sigmoid(output.score),
            dims=output.dims,
            status=status_of(output),
            detail=output.detail,
        )


def status_of(output: Output) -> UInt8:
    """Return UInt8["n"]: the output's status, with SCORER_ERROR where a score is not finite."""
    given = output.status
    status = np.zeros(len(output.score), np.uint8) if given is None else np.array(given, np.uint8)
    finite = torch.isfinite(output.score.detach()).cpu().numpy()
    status[(status == Status.OK) & ~finite] = Status.SCORER_ERROR
    return status
