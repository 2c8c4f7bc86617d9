"""Preferences as questions with answers, to fine-tune a judge on, and as items to test it on."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from embodied_reward.scoring.heads.choices import TIE, UNJUDGED
from embodied_reward.scoring.language.base import LanguageScorer, filled
from embodied_reward.scoring.language.likelihood import LikelihoodScorer
from embodied_reward.scoring.language.reader import Turn
from embodied_reward.scoring.language.yes_token import YesTokenScorer
from embodied_reward.scoring.preferences import Judgement
from embodied_reward.scoring.scorer import RawItems
from embodied_reward.scoring.status import Role, Status
from embodied_reward.types import Bool, UInt8

Frames = tuple[UInt8, ...]
Look = Callable[[int], Frames]
"""Number of a clip -> its frames."""


def lessons(scorer: LanguageScorer, rows: Sequence[Judgement], look: Look) -> list[Turn]:
    """Return what to learn from the judgements.

    A yes-token judge learns every pair in both orders and every label; a likelihood learns the
    prompt of whatever was preferred or passed. Ties teach neither.
    """
    if isinstance(scorer, LikelihoodScorer):
        good = [(winner, row.prompt) for row in rows for winner in _winners(row) if row.prompt]
        return [Turn(look(clip), scorer.config.query, text) for clip, text in good]
    assert isinstance(scorer, YesTokenScorer)
    turns = []
    for row in rows:
        question = filled(scorer.config.comparison, row.prompt)
        for winner, loser in pairs(row):
            turns.append(Turn((*look(loser), *look(winner)), question, "yes"))
            turns.append(Turn((*look(winner), *look(loser)), question, "no"))
        if row.label is not None:
            answer = "yes" if row.label else "no"
            question = filled(scorer.config.prompt, row.prompt)
            turns += [Turn(look(clip), question, answer) for clip in row.items]
    return turns


def pairs(row: Judgement) -> Iterator[tuple[int, int]]:
    """Yield clips (preferred, other) of a judgement, by its first dimension."""
    best = row.best[0] if row.best else UNJUDGED
    if best not in (TIE, UNJUDGED):
        winner = row.items[best]
        yield from ((winner, other) for k, other in enumerate(row.items) if k != best)


def verdicts(
    scorer: LanguageScorer, rows: Sequence[Judgement], look: Look, texts: Sequence[str] = ()
) -> Bool:
    """Return which tests the judge passes, Bool["k"]; what it cannot score it does not pass.

    A yes-token judge must prefer the better of each pair and tell labels apart at margin 0. A
    likelihood must find the true prompt likelier than another one of `texts`.
    """
    if isinstance(scorer, LikelihoodScorer):
        return _captions(scorer, rows, look, texts)
    compared = [
        ((*look(b), *look(a)), [Role.REFERENCE] * len(look(b)) + [0] * len(look(a)), row.prompt, 1)
        for row in rows
        for a, b in pairs(row)
    ]
    judged = [
        (look(clip), [0] * len(look(clip)), row.prompt, 1 if row.label else -1)
        for row in rows
        if row.label is not None
        for clip in row.items
    ]
    asked = compared + judged
    margins = _scores(scorer, [(f, r, t) for f, r, t, _ in asked], dim="margin")
    return margins * np.array([sign for *_, sign in asked], float) > 0


def _captions(
    scorer: LanguageScorer, rows: Sequence[Judgement], look: Look, texts: Sequence[str]
) -> Bool:
    asked, known = [], sorted(set(texts))
    for k, row in enumerate(rows):
        others = [t for t in known if t != row.prompt]
        for clip in _winners(row):
            if row.prompt and others:
                frames = look(clip)
                both = (row.prompt, others[k % len(others)])
                asked += [(frames, [0] * len(frames), text) for text in both]
    scores = _scores(scorer, asked, dim="mean_log_p")
    return scores[::2] > scores[1::2]


def _winners(row: Judgement) -> tuple[int, ...]:
    if row.label is not None:
        return row.items if row.label else ()
    return tuple(dict.fromkeys(winner for winner, _ in pairs(row)))


def _scores(
    scorer: LanguageScorer, asked: Sequence[tuple[Frames, list[int], str]], *, dim: str
) -> np.ndarray:
    found: list[np.ndarray] = [np.zeros(0)]
    column = scorer.dim_names.index(dim)
    for k in range(0, len(asked), scorer.max_items):
        part = asked[k : k + scorer.max_items]
        output = scorer.evaluate(
            RawItems(
                frames=tuple(frames for frames, _, _ in part),
                texts=tuple(text or None for *_, text in part),
                role=tuple(np.array(role, np.int64) for _, role, _ in part),
                keys=tuple(i.to_bytes(16, "little") for i in range(len(part))),
            )
        )
        assert output.dims is not None
        values = output.dims[:, column].double().numpy()
        status = np.zeros(len(part)) if output.status is None else output.status
        found.append(np.where(status == Status.OK, values, np.nan))
    return np.concatenate(found)
