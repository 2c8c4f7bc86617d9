"""Scorers in another process: vLLM, SGLang or any server with OpenAI's chat completions.

`mode: logprobs` reads log P(yes) - log P(no) from the first token's `top_logprobs`; `mode: text`
lets the model write and reads one number from it. Whatever goes wrong has a status: TIMEOUT,
SCORER_ERROR (HTTP, broken JSON), PARSE_ERROR (the answer is in `detail`), LOW_MASS. No case ends
in a made-up number.
"""

import base64
import json
import math
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch

from embodied_reward.errors import ConfigError
from embodied_reward.scoring.language.answers import NumberFormat, ParseError, number_format
from embodied_reward.scoring.language.base import filled, split_roles
from embodied_reward.scoring.language.chat_http import DeadlineError, Endpoint, ReplyError
from embodied_reward.scoring.scorer import ItemScorer, Output, RawItems, ScorerCard, joint_digest
from embodied_reward.scoring.status import Status
from embodied_reward.types import Float32, UInt8

Found = tuple[float, Status, str]
SHOWN = 500
"""Characters of an answer that a message shows."""


@dataclass(frozen=True, kw_only=True)
class OpenAIConfig:
    """Which server, what to ask and how to read the answer."""

    name: str = ""
    """by which requests ask for it; default: the model's name"""
    url: str = "http://127.0.0.1:8000/v1"
    """base URL; `/chat/completions` is appended"""
    model: str = ""
    """name of the model on the server"""
    mode: Literal["logprobs", "text"] = "logprobs"
    """logprobs: yes or no, one token; text: the model writes, a number is read"""
    prompt: str = 'Does this image show "{text}"? Answer yes or no.'
    """question; {text} is the item's text; frames with a reference role come first"""
    system: str = ""
    """system message; empty sends none"""
    format: str = "final_score"
    """where the number stands: final_score, hop, score_tag, number; `pattern` or `key` go first"""
    pattern: str = ""
    """own regular expression with one group"""
    key: str = ""
    """key of a JSON object in the answer"""
    low: float | None = None
    """smallest accepted number; default: that of the format, or 0"""
    high: float | None = None
    """largest accepted number; default: that of the format, or 10"""
    factor: float = 1.0
    """by which the number of an own `pattern` or `key` is multiplied"""
    min_mass: float = 0.5
    """logprobs: least P(yes) + P(no)"""
    censored: bool = False
    """logprobs: if the engine cut one of the answers off, take the least probability it did
    report; the margin is then a bound. Off: such an item is LOW_MASS"""
    top_logprobs: int = 20
    """logprobs: how many tokens the engine reports"""
    max_tokens: int = 1024
    """text: longest answer"""
    temperature: float = 0.0
    """text: 0 is greedy"""
    timeout: float = 120.0
    """seconds for one item, retries included; a request's own deadline may be nearer [s]"""
    retries: int = 4
    """further tries after 429, 5xx and broken connections"""
    concurrency: int = 16
    """requests at once"""
    api_key_env: str = "OPENAI_API_KEY"
    """environment variable with the key; it may be absent"""


class OpenAIScorer(ItemScorer):
    """See the module docstring.

    Columns: probability, mass and margin in logprobs mode; none in text mode.

    Raises:
        ConfigError: no model, no URL, an unknown mode or format.
    """

    external = True
    max_items = 1  # every item has its own deadline; the queue calls from `concurrency` threads

    def __init__(self, config: OpenAIConfig) -> None:
        if config.mode not in ("logprobs", "text"):
            raise ConfigError(f"mode={config.mode!r}; accepted: logprobs, text")
        if not config.model:
            raise ConfigError("an OpenAI-compatible scorer needs `model`, its name on the server")
        if config.concurrency < 1 or not config.timeout > 0 or config.retries < 0:
            raise ConfigError("concurrency and timeout must be positive, retries not negative")
        self.config, self.concurrency = config, config.concurrency
        key = os.environ.get(config.api_key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._endpoint = Endpoint(config.url, headers, config.retries)
        logprobs = config.mode == "logprobs"
        self._format = None if logprobs else _format_of(config)
        low, high = (self._format.low, self._format.high) if self._format else (-math.inf, math.inf)
        facts = json.dumps(asdict(config), sort_keys=True)
        self.card = ScorerCard(
            name=config.name or config.model,
            type="openai",
            # The server's weights cannot be read: the card names what was asked, and no digest.
            weights_sha256=joint_digest("", facts),
            dim_names=("probability", "mass", "margin") if logprobs else (),
            score_range=(low, high),
            extra={"url": config.url, "model": config.model, "mode": config.mode},
        )

    def evaluate(self, items: RawItems) -> Output:
        """See the base class; several items are asked at once."""
        left = self.config.timeout
        if items.timeout is not None:
            left = min(left, items.timeout)
        deadline = time.monotonic() + left
        with ThreadPoolExecutor(min(len(items), self.concurrency)) as pool:
            rows = list(pool.map(lambda i: self._one(items, i, deadline), range(len(items))))
        return Output(
            score=torch.tensor([row[0] for row, _ in rows], dtype=torch.float32),
            dims=torch.from_numpy(np.stack([dims for _, dims in rows])),
            status=np.array([row[1] for row, _ in rows], np.uint8),
            detail={i: row[2] for i, (row, _) in enumerate(rows) if row[2]},
        )

    def _one(self, items: RawItems, i: int, deadline: float) -> tuple[Found, Float32]:
        none = np.full(len(self.card.dim_names), np.nan, np.float32)
        lacks = self._missing(items, i)
        if lacks:
            return (math.nan, Status.BAD_INPUT, lacks), none
        jitter = random.Random(items.keys[i])  # noqa: S311 (pauses between tries, no secret)
        try:
            reply = self._endpoint.post(self._body(items, i), deadline, jitter)
            if self.config.mode == "logprobs":
                return self._margin(_first_token(reply))
            return self._number(*_answer(reply)), none
        except DeadlineError as error:
            return (math.nan, Status.TIMEOUT, str(error)), none
        except ReplyError as error:
            return (math.nan, Status.SCORER_ERROR, str(error)), none

    def _missing(self, items: RawItems, i: int) -> str:
        if not items.frames[i]:
            return "no frame"
        needs = "{text}" in self.config.prompt and not items.texts[i]
        return "the prompt needs a text and the item has none" if needs else ""

    def _body(self, items: RawItems, i: int) -> dict[str, Any]:
        reference, own = split_roles(items.frames[i], items.role[i].tolist())
        urls = [{"url": png_url(frame)} for frame in (*reference, *own)]
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": u} for u in urls]
        content.append({"type": "text", "text": filled(self.config.prompt, items.texts[i])})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.config.system:
            messages.insert(0, {"role": "system", "content": self.config.system})
        body = {
            "model": self.config.model,
            "messages": messages,
            "seed": items.seed % 2**31,
        }
        if self.config.mode == "text":
            heat = self.config.temperature
            return {**body, "max_tokens": self.config.max_tokens, "temperature": heat}
        more = {"logprobs": True, "top_logprobs": self.config.top_logprobs, "temperature": 0.0}
        return {**body, "max_tokens": 1, **more}

    def _margin(self, tokens: Sequence[tuple[str, float]]) -> tuple[Found, Float32]:
        none = np.full(3, np.nan, np.float32)
        log_p = {word: _log_mass(tokens, word) for word in ("yes", "no")}
        absent = [word for word, value in log_p.items() if value == -math.inf]
        shown = ", ".join(f"{t!r} {math.exp(p):.3g}" for t, p in tokens[:5])
        mass = sum(map(math.exp, log_p.values()))
        if len(absent) == 2 or (absent and not self.config.censored):
            why = f"no '{absent[0]}' among the {len(tokens)} tokens reported: {shown}"
            return (math.nan, Status.LOW_MASS, why), none
        if not mass >= self.config.min_mass:
            why = f"P(yes) + P(no) = {mass:.3g} is under min_mass={self.config.min_mass}: {shown}"
            return (math.nan, Status.LOW_MASS, why), none
        if absent:
            log_p[absent[0]] = min(p for _, p in tokens)
        margin = log_p["yes"] - log_p["no"]
        probability = 1 / (1 + math.exp(-margin)) if margin > -700 else 0.0
        why = f"'{absent[0]}' was cut off: |margin| is at least this" if absent else ""
        return (margin, Status.OK, why), np.array([probability, mass, margin], np.float32)

    def _number(self, answer: str, finish: str) -> Found:
        assert self._format is not None
        try:
            return self._format.parse(answer), Status.OK, ""
        except ParseError as error:
            cut = f" (cut off at {self.config.max_tokens} tokens)" if finish == "length" else ""
            shown = answer if len(answer) <= SHOWN else "..." + answer[-SHOWN:]
            return math.nan, Status.PARSE_ERROR, f"{error}{cut}; the answer: {shown!r}"


def png_url(frame: UInt8) -> str:
    """Return a frame UInt8["h w 3"] as a data URL, without loss."""
    bgr = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR)
    coded, data = cv2.imencode(".png", bgr)
    if not coded:
        raise ValueError(f"cannot encode a frame of shape {frame.shape} as PNG")
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def _format_of(config: OpenAIConfig) -> NumberFormat:
    limits = {k: v for k, v in (("low", config.low), ("high", config.high)) if v is not None}
    if config.pattern or config.key:
        return NumberFormat(config.pattern, config.key, config.factor, **limits)
    return number_format(config.format, **limits)


def _log_mass(tokens: Sequence[tuple[str, float]], word: str) -> float:
    """Return log of the summed probability of a word's spellings; -inf if none was reported."""
    found = [p for token, p in tokens if token.strip(" \t\n▁Ġ").lower() == word]
    return float(np.logaddexp.reduce(found)) if found else -math.inf


def _choice(reply: Any) -> dict[str, Any]:
    try:
        choice = reply["choices"][0]
        choice["message"]  # noqa: B018 (raises where there is none)
    except (KeyError, IndexError, TypeError) as error:
        raise ReplyError(f"the reply has no choices[0].message: {str(reply)[:200]}") from error
    return choice


def _answer(reply: Any) -> tuple[str, str]:
    choice = _choice(reply)
    text = choice["message"].get("content") if isinstance(choice["message"], dict) else None
    if not isinstance(text, str):
        raise ReplyError(f"the reply holds no text: {str(choice)[:200]}")
    return text, str(choice.get("finish_reason"))


def _first_token(reply: Any) -> list[tuple[str, float]]:
    """Return the reported tokens with log p, most probable first."""
    choice = _choice(reply)
    try:
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        tokens = [(str(t["token"]), float(t["logprob"])) for t in top]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ReplyError(
            f"the reply has no logprobs.content[0].top_logprobs ({type(error).__name__}); start "
            f"the server with log-probabilities enabled: {str(choice)[:200]}"
        ) from error
    if not all(p <= 1e-6 for _, p in tokens):
        raise ReplyError(f"the reply holds log-probabilities above 0 or NaN: {tokens[:5]}")
    return sorted(tokens, key=lambda t: -t[1])
