"""A vision-language model of a few hundred kilobytes, trained from nothing in seconds.

For tests, toys and narrow vocabularies: LLaVA's architecture (Liu et al. 2023) with a two-layer
vision transformer, a two-layer Llama and one token a word.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch

from embodied_reward.scoring.language.reader import Reader

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")


def word_tokenizer(texts: Iterable[str], *, end: bool = False) -> Any:
    """Return a tokenizer with one token for every word and mark in the texts, in lower case.

    Args:
        texts: whose words it knows.
        end: close every text with </s>, as text encoders do and prompts do not.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({w for text in texts for w in re.findall(r"\w+|[^\w\s]+", text.lower())})
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys((*SPECIAL, *words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A </s>" if end else "<s> $A", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **names, additional_special_tokens=["<image>"]
    )


def small_reader(
    texts: Iterable[str], *, image_size: int = 32, patch: int = 8, dim: int = 64, seed: int = 0
) -> Reader:
    """Make an untrained model that knows the words of the texts.

    Args:
        texts: everything it will read or write: prompts, answers, captions.
        image_size: side of the pictures it sees [px].
        patch: side of a patch [px].
        dim: width.
        seed: of the weights.
    """
    from transformers import (
        AutoConfig,
        CLIPImageProcessor,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = word_tokenizer(texts)
    # The usual initial deviation of 0.02 suits widths of thousands; small models start too flat.
    shape = {"hidden_size": dim, "intermediate_size": 2 * dim, "initializer_range": 0.1}
    shape |= {"num_attention_heads": 4, "num_hidden_layers": 2}
    vision = {"image_size": image_size, "patch_size": patch, "projection_dim": dim}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 512, "num_key_value_heads": 4}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    config: Any = AutoConfig.for_model(
        "llava",
        vision_config={**shape, **vision, "model_type": "clip_vision_model"},
        text_config={**shape, **text, "model_type": "llama"},
        image_token_index=SPECIAL.index("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    pictures = CLIPImageProcessor(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    processor = LlavaProcessor(pictures, tokenizer, patch, "default", num_additional_image_tokens=1)
    return Reader(model, processor)
