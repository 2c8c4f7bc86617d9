"""A vision-language model of `transformers`, read by teacher forcing: no decoding, no sampling.

One pass gives the probability of every token of a given answer. Padding lies on the right and is
masked, so an item's numbers do not depend on its neighbours (up to the last bits of fp32).
"""

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.scoring.scorer import digest_of
from embodied_reward.scoring.transformers_trunk import architecture, vocabulary
from embodied_reward.types import Int64, UInt8

CHUNK = 64
"""Turns that the processor sees at once."""


@dataclass(frozen=True)
class Turn:
    """One question about pictures, and the answer whose probability is asked for.

    Attributes:
        images: UInt8["h w 3"] each, in the order in which the prompt speaks of them.
        prompt: the question.
        answer: forced answer; empty asks for the first token of any answer.
    """

    images: tuple[UInt8, ...]
    prompt: str
    answer: str = ""


@dataclass(frozen=True)
class Encoded:
    """A turn as tokens.

    Attributes:
        inputs: what the model takes, one turn per row.
        first: position whose logits predict the first token of the answer.
        answer: Int64["k"], tokens of the answer.
    """

    inputs: dict[str, Tensor]
    first: int
    answer: Tensor


class Reader:
    """A model with its processor.

    Args:
        model: of `AutoModelForImageTextToText`; moved nowhere, set to eval mode.
        processor: its `AutoProcessor`, with a chat template or an image token.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model.eval(), processor
        self.tokenizer = processor.tokenizer
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.device = next(model.parameters()).device
        self._selects = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def digest(self) -> str:
        """Sha256 of weights, architecture, tokenizer, template and preprocessing, hex."""
        facts = [
            architecture(self.model),
            vocabulary(self.tokenizer),
            str(self.processor.chat_template),
            self.processor.image_processor.to_json_string(),
        ]
        return digest_of(self.model, *facts)

    def first_token(self, turns: Sequence[Turn]) -> Tensor:
        """Return log-probabilities of the first token of the answer, float32 Tensor["n words"]."""
        rows = self._read(self.encode(turns), answers=False)
        return torch.stack([row[0] for row in rows])

    def answer_log_probs(self, turns: Sequence[Turn]) -> list[Tensor]:
        """Return log p of every answer token given all before it, float32 Tensor["k"] per turn.

        Raises:
            ValueError: an answer without tokens.
        """
        return self.encoded_log_probs(self.encode(turns))

    def encoded_log_probs(self, encoded: Sequence[Encoded]) -> list[Tensor]:
        """Return `answer_log_probs` of turns that are tokens already."""
        if not all(len(e.answer) for e in encoded):
            raise ValueError("an answer has no tokens")
        rows = self._read(encoded, answers=True)
        return [
            row.gather(1, e.answer.to(row.device)[:, None]).squeeze(1)
            for row, e in zip(rows, encoded, strict=True)
        ]

    def token_ids(self, words: Sequence[str]) -> Int64:
        """Return the ids of the words that are one known token; there may be none."""
        found = [self.tokenizer(w, add_special_tokens=False).input_ids for w in words]
        unknown = self.tokenizer.unk_token_id
        known = {ids[0] for ids in found if len(ids) == 1 and ids[0] != unknown}
        return np.array(sorted(known), np.int64)

    def save(self, folder: Path) -> None:
        """Write model and processor as `transformers` does."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def encode(self, turns: Sequence[Turn]) -> list[Encoded]:
        """Turn pictures and words into the model's input."""
        groups: dict[Any, list[int]] = {}
        for i, turn in enumerate(turns):
            groups.setdefault(tuple(image.shape for image in turn.images), []).append(i)
        found: dict[int, Encoded] = {}
        for rows in groups.values():
            # One call for several, as the processors' checks take longer than their work.
            for at in range(0, len(rows), CHUNK):
                chunk = rows[at : at + CHUNK]
                found.update(zip(chunk, self._encode([turns[i] for i in chunk]), strict=True))
        return [found[i] for i in range(len(turns))]

    def _encode(self, turns: list[Turn]) -> list[Encoded]:
        """Encode turns whose pictures have the same number and sizes."""
        n = len(turns)
        inputs = self.processor(
            images=[list(turn.images) for turn in turns],
            text=[self._text(turn) for turn in turns],
            return_tensors="pt",
            input_data_format="channels_last",
            padding=True,
            padding_side="right",
        )
        inputs = {k: v for k, v in inputs.items() if isinstance(v, Tensor)}
        whole, lengths = inputs["input_ids"].shape, inputs["attention_mask"].sum(1).tolist()
        # Pictures lie one after the other or one row a turn; alike as they are, they split evenly.
        parts = {k: v.chunk(n) for k, v in inputs.items()}
        rows = [{k: part[i] for k, part in parts.items()} for i in range(n)]
        sequences = [k for k, v in inputs.items() if v.shape == whole]
        return [self._forced(*args, sequences) for args in zip(turns, rows, lengths, strict=True)]

    def _forced(
        self, turn: Turn, inputs: dict[str, Tensor], length: int, sequences: list[str]
    ) -> Encoded:
        """Remove the padding and append the answer."""
        ids = self.tokenizer(turn.answer, add_special_tokens=False).input_ids
        answer = torch.tensor(ids, dtype=torch.int64)
        fill = {"input_ids": answer, "attention_mask": torch.ones_like(answer)}
        for key in sequences:
            more = fill.get(key, torch.zeros_like(answer)).to(inputs[key].dtype)
            inputs[key] = torch.cat([inputs[key][:, :length], more[None]], 1)
        return Encoded(inputs, length - 1, answer)

    def _text(self, turn: Turn) -> str:
        if self.processor.chat_template is None:
            return self.processor.image_token * len(turn.images) + " " + turn.prompt
        pictures = [{"type": "image"}] * len(turn.images)
        content = [*pictures, {"type": "text", "text": turn.prompt}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    def _read(self, encoded: Sequence[Encoded], *, answers: bool) -> list[Tensor]:
        """Return per turn the log-probabilities that predict its answer, Tensor["k words"]."""
        found: list[Tensor] = [torch.empty(0)] * len(encoded)
        for rows in _alike(encoded):
            group = [encoded[i] for i in rows]
            counts = [len(e.answer) if answers else 1 for e in group]
            for i, part in zip(rows, self._forward(group, counts), strict=True):
                found[i] = part
        return found

    def _forward(self, group: list[Encoded], counts: list[int]) -> list[Tensor]:
        spans = [torch.arange(e.first, e.first + k) for e, k in zip(group, counts, strict=True)]
        kept = torch.unique(torch.cat(spans))
        inputs = {
            k: v.to(self.device) for k, v in _collate(group, self.tokenizer.pad_token_id).items()
        }
        more = {"logits_to_keep": kept.to(self.device)} if self._selects else {}
        logits = self.model(**inputs, use_cache=False, **more).logits
        if not self._selects:
            logits = logits[:, kept]
        where = [torch.searchsorted(kept, span).to(logits.device) for span in spans]
        return [logits[i, at].float().log_softmax(-1) for i, at in enumerate(where)]


def _sequences(encoded: Encoded) -> set[str]:
    shape = encoded.inputs["input_ids"].shape
    return {k for k, v in encoded.inputs.items() if v.shape == shape}


def _alike(encoded: Sequence[Encoded]) -> list[list[int]]:
    """Group turns that may share a batch: their pictures have the same shapes."""
    groups: dict[Any, list[int]] = {}
    for i, e in enumerate(encoded):
        shape = {k: tuple(v.shape[1:]) for k, v in e.inputs.items() if k not in _sequences(e)}
        groups.setdefault(json.dumps(shape, sort_keys=True), []).append(i)
    return list(groups.values())


def _collate(group: Sequence[Encoded], pad: int) -> dict[str, Tensor]:
    length = max(e.inputs["input_ids"].shape[1] for e in group)
    out = {}
    for key in group[0].inputs:
        rows = [e.inputs[key] for e in group]
        if key in _sequences(group[0]):
            fill = pad if key == "input_ids" else 0
            rows = [torch.nn.functional.pad(r, (0, length - r.shape[1]), value=fill) for r in rows]
        out[key] = torch.cat(rows)
    return out


def load_reader(name: Path | str, *, revision: str | None = None, device: str = "cpu") -> Reader:
    """Load a vision-language model in fp32 on a CPU and in bfloat16 on CUDA.

    Args:
        name: folder of `save_pretrained`, or hub id.
        revision: commit of the hub model; pin it for reproducible scores.
        device: torch device.

    Raises:
        ConfigError: no such model, or not one that reads pictures and writes text.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(
            name, revision=revision, dtype=dtype
        )
        processor = AutoProcessor.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"'{name}' is no vision-language model that transformers can load ({reason}); give a "
            "folder saved with save_pretrained() (model and processor) or a hub id that this "
            "machine can reach"
        ) from error
    return Reader(model.to(torch.device(device)), processor)
