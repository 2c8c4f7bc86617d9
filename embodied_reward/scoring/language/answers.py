"""Numbers in what a language model wrote: found in the declared place and range, or an error.

There is no fallback number. An answer without the number, with several different ones, or with
one out of range is a `ParseError`, which becomes the status PARSE_ERROR.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from embodied_reward.errors import ConfigError, did_you_mean

NUMBER = r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
# The number ends here: no further digits, and neither a percentage nor a fraction.
END = r"(?![\d.,]*\d|\w|\s*[%/])"

# Where known models write their number: (pattern, factor, low, high).
FORMATS: dict[str, tuple[str, float, float, float]] = {
    # UnifiedReward (Wang et al. 2025), pointwise.
    "final_score": (rf"final\s+score[\s:=*_]{{0,8}}?{NUMBER}(?:\s*/\s*5)?{END}", 1.0, 1.0, 5.0),
    # Robo-Dopamine: relative progress between two moments, in percent.
    "hop": (rf"<score>\s*{NUMBER}\s*%\s*</score>", 0.01, -1.0, 1.0),
    "score_tag": (rf"<score>\s*{NUMBER}\s*</score>", 1.0, 0.0, 10.0),
    "number": (rf"\A\s*{NUMBER}\s*\Z", 1.0, 0.0, 10.0),
}


class ParseError(ValueError):
    """An answer that does not hold the number that was asked for."""


@dataclass(frozen=True)
class NumberFormat:
    """Where in an answer the number stands, and what it may be.

    Attributes:
        pattern: regular expression with one group, without regard to case; or empty for JSON.
        key: key of the JSON object in the answer that holds the number; dots go deeper.
        factor: by which the number is multiplied.
        low: smallest accepted value, after the factor.
        high: largest accepted value.
    """

    pattern: str = ""
    key: str = ""
    factor: float = 1.0
    low: float = 0.0
    high: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if bool(self.pattern) == bool(self.key):
            raise ConfigError("give either the `pattern` or the JSON `key` of the number")
        if not self.low < self.high:
            raise ConfigError(f"low={self.low} must be below high={self.high}")
        if not self.pattern:
            return
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ConfigError(f"'{self.pattern}' is no regular expression: {error}") from error
        if groups != 1:
            raise ConfigError(f"'{self.pattern}' has {groups} groups; the number needs one")

    def parse(self, answer: str) -> float:
        """Return the number. Raises ParseError."""
        found = self._in_json(answer) if self.key else self._in_text(answer)
        value = found * self.factor
        if not math.isfinite(value) or not self.low <= value <= self.high:
            raise ParseError(f"{found:g} is outside [{self.low:g}, {self.high:g}]")
        return value

    def _in_text(self, answer: str) -> float:
        found = re.findall(self.pattern, answer, re.IGNORECASE)
        try:
            values = {float(text) for text in found}
        except ValueError as error:
            raise ParseError(f"not a number: {error}") from error
        if not values:
            raise ParseError("the number is missing")
        if len(values) > 1:
            raise ParseError(f"several numbers: {', '.join(map(str, sorted(values)))}")
        return values.pop()

    def _in_json(self, answer: str) -> float:
        value: Any = _json_object(answer)
        for part in self.key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise ParseError(f"the JSON object has no '{self.key}'")
            value = value[part]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ParseError(f"'{self.key}' is {value!r:.40}, which is no number")
        return float(value)


def number_format(name: str, **override: Any) -> NumberFormat:
    """Return a known format, with other limits if given. Raises ConfigError for an unknown one."""
    if name not in FORMATS:
        raise ConfigError(f"no answer format '{name}'; {did_you_mean(name, FORMATS)}")
    pattern, factor, low, high = FORMATS[name]
    facts = {"pattern": pattern, "factor": factor, "low": low, "high": high}
    return NumberFormat(**{**facts, **override})


def _json_object(answer: str) -> dict[str, Any]:
    """Return the only JSON object in the text, which may stand in a code fence or in prose."""
    decoder, found, at = json.JSONDecoder(), [], answer.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(answer, at)
        except (json.JSONDecodeError, RecursionError):
            end = at + 1
        else:
            found.append(value)
        at = answer.find("{", end)
    if not found:
        raise ParseError("no complete JSON object")
    if any(value != found[0] for value in found[1:]):
        raise ParseError(f"{len(found)} different JSON objects")
    return found[0]
