"""What the CUDA path decides before it runs anything, which needs no GPU to be right."""

import pytest
import torch
from torch import nn

from embodied_reward.errors import ConfigError
from embodied_reward.scoring import FeatureCache, ScoringCore
from embodied_reward.scoring import cache as cache_module
from embodied_reward.scoring.graphs import HostContacts
from embodied_reward.scoring.runner import Runner
from embodied_reward.scoring.scorer import segment_sum
from embodied_reward.scoring.trunks import EncoderTrunk, cast_once
from embodied_reward.vision.encoders import ConvEncoder
from tests.scoring.conftest import CountingTrunk, MeanHead, pictures, scorer_of
from tests.scoring.test_trunks import FAMILIES


def contacts(function, *given):
    with HostContacts(torch.device("cpu")) as seen:
        function(*given)
    return seen.first


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum().item(),
        lambda x: x if (x > 0).any() else -x,
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.bincount(x.long().abs()),
    ],
)
def test_what_waits_for_the_device_is_seen_before_a_capture(function):
    assert contacts(function, torch.arange(4.0))


def test_what_moves_between_devices_is_seen_too():
    with HostContacts(torch.device("meta")) as seen:
        torch.zeros(3, device="meta") + 1.5
        assert not seen.first
        torch.zeros(3).to("meta")
    assert "_to_copy" in seen.first


@pytest.mark.parametrize("family", FAMILIES)
def test_pretrained_towers_can_be_captured(family):
    model = FAMILIES[family]()[0].eval()
    call = getattr(model, "get_image_features", model)
    with torch.no_grad():
        assert not contacts(lambda x: call(pixel_values=x), torch.rand(2, 3, 32, 32))


def test_our_encoders_can_be_captured(encoder):
    trunks = [EncoderTrunk(encoder), EncoderTrunk(ConvEncoder("conv64", 8, 32))]
    with torch.no_grad():
        assert [contacts(t.forward, torch.rand(2, 3, 32, 32)) for t in trunks] == ["", ""]


@pytest.mark.parametrize(
    ("most", "sizes"), [(64, {1, 2, 4, 8, 16, 32, 64}), (24, {1, 2, 4, 8, 16, 24})]
)
def test_batches_have_few_sizes_and_none_above_the_largest(trunk, most, sizes, monkeypatch):
    runner = Runner(trunk, max_batch=most, canonical=None)
    monkeypatch.setattr(runner, "_graphed", object())  # as on CUDA
    found = [runner.bucket(n) for n in range(1, most + 1)]
    assert set(found) == sizes
    assert all(b >= n for n, b in enumerate(found, 1))
    assert Runner(trunk, max_batch=300, canonical=None).bucket(257) == 257  # as on a CPU
    runner = Runner(trunk, max_batch=300, canonical=None)
    monkeypatch.setattr(runner, "_graphed", object())
    assert {runner.bucket(n) for n in range(257, 301)} == {300}


def test_weights_that_are_cast_once_give_the_numbers_of_autocast(encoder):
    inputs = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for module in (encoder, ConvEncoder("conv64", 16, 32).eval()):
        lean = cast_once(module, torch.bfloat16)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(lean(inputs), module(inputs))
        assert {p.dtype for p in module.parameters()} == {torch.float32}
        products = [m for m in lean.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        assert {m.weight.dtype for m in products} == {torch.bfloat16}
        assert cast_once(module, torch.float32) is module


def test_a_trunk_in_16_bits_follows_the_encoder_only_as_a_new_trunk():
    encoder = ConvEncoder("conv64", 16, 32)
    trunk = EncoderTrunk(encoder, torch.bfloat16)
    with torch.no_grad():
        encoder.head[0].weight.add_(1)
    assert trunk.stale
    assert EncoderTrunk(encoder, torch.bfloat16).digest != trunk.digest


def test_sums_over_items_are_those_of_index_add():
    values, owner = torch.randn(7, 3), torch.tensor([0, 0, 1, 3, 3, 3, 3])
    expected = torch.zeros(5, 3).index_add(0, owner, values)
    assert torch.equal(segment_sum(values, owner, 5), expected)
    by_put = torch.zeros(5, 3).index_put((owner,), values, accumulate=True)  # the way of CUDA
    torch.testing.assert_close(by_put, expected)


def test_a_head_on_another_device_is_refused_before_it_scores(trunk):
    head = MeanHead().to("meta")
    with ScoringCore() as core:
        core.register(scorer_of(trunk))
        with pytest.raises(ConfigError, match="the head lies on meta and the trunk on cpu"):
            core.swap_head("mean", head, digest="x")


def test_a_device_without_memory_for_the_cache_costs_no_score(trunk, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    frames = pictures(6)
    cache = FeatureCache()
    with ScoringCore(cache=cache) as core:
        first = core.embed(trunk, frames[:2])
        monkeypatch.setattr(cache_module, "FIRST_ROWS", 1)
        monkeypatch.setattr(cache_module._Slab, "_grow", full)
        assert core.embed(trunk, frames).isfinite().all()
        assert torch.equal(core.embed(trunk, frames[:2]), first)
    empty = FeatureCache()
    with ScoringCore(cache=empty) as core:
        assert core.embed(trunk, frames).isfinite().all()
    assert len(empty) == 0


def test_trunks_that_were_trained_on_are_let_go(encoder):
    with ScoringCore() as core:
        for k in range(3):
            trunk = CountingTrunk(encoder)
            trunk.digest = str(k)
            core.embed(trunk, pictures(2))
            trunk.retire()
        assert len(core._dispatcher._lanes) == 1
