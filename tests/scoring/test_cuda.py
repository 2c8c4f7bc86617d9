"""The scoring core on a GPU: the CPU's scores, strict bits, graphs, streams, full memory.

    uv run pytest tests/scoring/test_cuda.py

Skipped without a CUDA device. `SCORING_TEST_DEVICE=cpu` runs what does not need one on the CPU.
"""

import os
import threading
import warnings

import numpy as np
import pytest
import torch

from embodied_reward.math.sinkhorn import cosine_cost, transport
from embodied_reward.scoring import FeatureCache, Scorer, ScorerCard, ScoreRequest, ScoringCore
from embodied_reward.scoring.cosine import cosine_scorer
from embodied_reward.scoring.heads import HEADS
from embodied_reward.scoring.runner import Runner
from embodied_reward.scoring.transformers_trunk import TransformersTrunk
from embodied_reward.scoring.transport.ring_client import RingClient
from embodied_reward.scoring.transport.ring_server import RingServer
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import ConvEncoder, TransformersEncoder
from embodied_reward.vision.saliency import SaliencyOptions
from tests.scoring.conftest import ConstantHead, MeanHead
from tests.scoring.heads.conftest import fit, make, sets_of
from tests.scoring.test_invariance import NoisyHead
from tests.scoring.test_trunks import FAMILIES

DEVICE = os.environ.get("SCORING_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"
)
on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="says something about CUDA alone")
BF16, FP16, FP32, FP64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
KINDS = ("conv", "vit", *FAMILIES, "patches")


def pictures(n, size=64, seed=0):
    """Coloured areas under noise: random pixels alone look all alike to a network."""
    rng = np.random.default_rng(seed)
    areas = rng.integers(0, 256, (n, 4, 4, 3)).repeat(size // 4, 1).repeat(size // 4, 2)
    return np.clip(areas + rng.integers(-30, 31, areas.shape), 0, 255).astype(np.uint8)


POOL = pictures(24)


def trunk_of(kind, device=DEVICE, dtype=None, wide=FP32):
    """The same weights on every call; `wide` is the dtype that they are kept in."""
    torch.manual_seed(0)
    if kind == "conv":
        return EncoderTrunk(ConvEncoder("conv64", 64).to(device, wide), dtype)
    if kind == "vit":
        from transformers import ViTConfig, ViTModel

        config = ViTConfig(
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=128,
            image_size=64,
            patch_size=8,
        )
        model = ViTModel(config, add_pooling_layer=False)
        made = TransformersEncoder(model, mean=[0.5] * 3, std=[0.25] * 3, image_size=64)
        return EncoderTrunk(made.to(device, wide), dtype)
    level = "patches" if kind == "patches" else "pooled"
    model, processor, tokenizer = FAMILIES["clip" if kind == "patches" else kind]()
    model = model.to(device, wide)
    return TransformersTrunk(model, processor, tokenizer, level=level, dtype=dtype)


class PatchHead(MeanHead):
    """Averages the tokens of a picture first."""

    def forward(self, items):
        from dataclasses import replace

        return super().forward(replace(items, features=items.features.mean(1)))


def scorer_of(trunk, head=None, name="mean"):
    blank = trunk.preprocess(torch.zeros(1, 8, 8, 3, dtype=torch.uint8).to(trunk.device))
    with torch.no_grad():
        dim = trunk.forward(blank.double() if trunk.dtype == FP64 else blank)
    kind = PatchHead if dim.ndim == 3 else MeanHead
    head = (head or kind(dim.shape[-1])).to(trunk.device)
    return Scorer(ScorerCard(name=name, type="test"), trunk, head)


def score(scorer, frames=POOL, name="mean", cache=None, **columns):
    """One request to a core of its own."""
    modes = {k: columns.pop(k) for k in ("mode", "graphs") if k in columns}
    with ScoringCore(cache=cache, **modes) as core:
        core.register(scorer)
        return core.score(ScoreRequest(scorers=name, frames=frames, **columns))[name]


@pytest.fixture
def exact():
    """Products of convolutions in full fp32; PyTorch allows TF32 there by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


TOLERANCE = {FP32: 1e-3, BF16: 0.1, FP16: 0.02}
"""Largest difference from the CPU's fp32, in standard deviations of the scores."""
RESIZED = 0.05
"""More where pictures are resized by a cubic filter: a GPU does not round between its passes."""


@pytest.mark.parametrize("dtype", [FP32, BF16, FP16])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_cpu(kind, dtype, exact):
    native = 64 if kind in ("conv", "vit") else 32
    for size in (native, 48):
        frames = pictures(24, size)
        expected = score(scorer_of(trunk_of(kind, "cpu")), frames).require_ok()
        found = score(scorer_of(trunk_of(kind, dtype=dtype)), frames).require_ok()
        worst = np.abs(found - expected).max() / expected.std()
        print(f"{kind} {dtype}, {size} px: {worst:.1e} of the spread")
        resized = size != native or kind == "dino"
        assert worst <= TOLERANCE[dtype] + RESIZED * resized
    if dtype != FP32:
        assert worst > 0, "16 bits cannot give the same numbers"
        assert np.corrcoef(found, expected)[0, 1] >= 0.999


@pytest.mark.parametrize("size", [48, 97, 240])
def test_pictures_are_resized_as_on_the_cpu_within_one_or_two_levels(size):
    frames = pictures(4, size=size - size % 4, seed=1)
    for kind in ("conv", "clip"):
        here, there = trunk_of(kind, "cpu"), trunk_of(kind)
        a = here.preprocess(torch.from_numpy(frames))
        b = there.preprocess(torch.from_numpy(frames).to(DEVICE)).cpu()
        # Cubic filters overshoot, and the CPU rounds between its two passes.
        level = 2 / 255 / min(here.pixels.std) if kind == "clip" else 1 / 255
        assert (a - b).abs().max() <= 1.01 * level


def test_a_gpu_computes_in_bfloat16_by_default():
    wanted = FP32 if DEVICE == "cpu" else BF16
    assert {trunk_of(kind).dtype for kind in KINDS} == {wanted}


@on_gpu
@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_change_no_bit(kind, dtype):
    scorer = scorer_of(trunk_of(kind, dtype=dtype))
    for n in (1, 3, 24):
        graphed, eager = (score(scorer, POOL[:n], graphs=g).require_ok() for g in (True, False))
        assert (graphed == eager).all()


@on_gpu
def test_every_bucket_is_captured_once():
    runner = Runner(trunk_of("vit"), max_batch=64, canonical=None)
    many = list(pictures(64, seed=2))
    first = {}
    for n in (1, 3, 4, 9, 16, 40, 64, 2, 64, 1, 16, 5):
        features = runner.launch(many[:n]).wait()
        assert len(features) == n
        first.setdefault(n, features)
        assert torch.equal(first[n], features)
    assert runner._graphed.captures == 6
    assert runner._graphed.graphs


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("kind", KINDS)
def test_strict_scores_are_bit_equal_in_any_composition(kind, dtype):
    scorer = scorer_of(trunk_of(kind, dtype=dtype))
    rng = np.random.default_rng(0)
    with ScoringCore(mode="strict", canonical=16) as core:
        core.register(scorer)
        alone = np.concatenate(
            [core.score(ScoreRequest(scorers="mean", frames=f[None]))["mean"].score for f in POOL]
        )
        assert np.unique(alone).size == 24
        orders = [rng.integers(0, 24, rng.integers(1, 20)) for _ in range(40)]
        futures = [core.submit(ScoreRequest(scorers="mean", frames=POOL[o])) for o in orders]
        for order, future in zip(orders, futures, strict=True):
            assert (future.result(120)["mean"].score == alone[order]).all()


def windows(frames, width=8):
    count = len(frames) - width + 1
    index = (np.arange(width)[None] + np.arange(count)[:, None]).ravel()
    return dict(frames=frames, index=index, offsets=np.arange(count + 1) * width)


def test_strict_clips_are_bit_equal_too():
    """Sums over the frames of a clip have one order; `index_add` on CUDA has none."""
    scorer = scorer_of(trunk_of("conv"))
    found = [score(scorer, mode="strict", **windows(POOL)).require_ok() for _ in range(10)]
    parts = score(scorer, mode="strict", **windows(POOL[5:20])).require_ok()
    assert all((f == found[0]).all() for f in found)
    assert (parts == found[0][5:13]).all()


@pytest.mark.parametrize("mode", ["strict", "tolerance"])
def test_a_hit_is_the_bits_of_the_miss(mode, tmp_path):
    scorer = scorer_of(trunk_of("vit"))
    first = score(scorer, mode=mode, cache=FeatureCache(folder=tmp_path))
    cache = FeatureCache(folder=tmp_path)
    from_disk, from_memory = (score(scorer, mode=mode, cache=cache) for _ in range(2))
    assert first == from_disk == from_memory
    assert from_disk.cached.all()
    assert not first.cached.any()


@pytest.mark.parametrize("cached", [False, True])
def test_interleaved_requests_get_their_own_pictures(cached):
    """Many threads, sizes that differ, buffers that are used again: no picture gets mixed up."""
    sizes = {64: pictures(40), 48: pictures(40, 48, 1), 96: pictures(40, 96, 2)}
    scorer = scorer_of(trunk_of("vit"))
    wrong, done = [], []
    with ScoringCore(mode="strict", cache=FeatureCache() if cached else None) as core:
        core.register(scorer)

        def ask(frames):
            return core.score(ScoreRequest(scorers="mean", frames=frames))["mean"].require_ok()

        alone = {size: ask(frames) for size, frames in sizes.items()}

        def work(seed):
            rng = np.random.default_rng(seed)
            for _ in range(12):
                a, b = rng.choice([64, 48, 96], 2, replace=False)
                i, j = rng.integers(0, 40, rng.integers(1, 24)), rng.integers(0, 40, 3)
                found = ask((sizes[a][i], sizes[b][j]))
                done.append(len(found))
                if (found != np.concatenate([alone[a][i], alone[b][j]])).any():
                    wrong.append((seed, a, b))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = core.stats()
    assert len(done) == 144
    assert not wrong
    assert stats["queued"] == 0
    if not cached:
        # Requests of several threads did share batches.
        assert stats["trunk_batches"] < sum(done) / 4


def test_heads_are_exchanged_under_load():
    scorer = scorer_of(trunk_of("conv"), ConstantHead(0))
    with ScoringCore(cache=FeatureCache()) as core:
        core.register(scorer)
        stop, wrong, seen = threading.Event(), [], set()

        def load():
            while not stop.is_set():
                batch = core.score(ScoreRequest(scorers="mean", frames=POOL[:5]))["mean"]
                seen.add(batch.head_version)
                if set(batch.score) != {float(batch.head_version)}:
                    wrong.append(batch)

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for k in range(1, 201):
            core.swap_head("mean", ConstantHead(k).to(DEVICE), digest=str(k))
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert seen


@pytest.mark.parametrize(("kind", "texts"), [("conv", ()), ("clip", ("a red cube",))])
def test_gradients_are_those_of_the_cpu(kind, texts):
    images = torch.rand(3, 3, 40, 40, dtype=FP64, generator=torch.Generator().manual_seed(0))
    found = {}
    for device in ("cpu", DEVICE):
        trunk = trunk_of(kind, device, FP64, FP64)
        scorer = cosine_scorer("mean", trunk) if texts else scorer_of(trunk, MeanHead().double())
        with ScoringCore() as core:
            core.register(scorer)
            scores, gradient = core.gradient("mean", images, texts)
        assert gradient.device.type == "cpu", "gradients lie where the images lie"
        found[device] = scores.cpu(), gradient
    for here, there in zip(found["cpu"], found[DEVICE], strict=True):
        assert here.abs().max() > 0
        torch.testing.assert_close(there, here, rtol=1e-7, atol=1e-9 * float(here.abs().max()))


@on_gpu
@pytest.mark.parametrize("kind", ["conv", "vit", "clip"])
def test_gradients_in_bfloat16_point_the_same_way(kind):
    texts = ("a red cube",) if kind == "clip" else ()
    images = torch.from_numpy(pictures(3)).movedim(-1, 1).float() / 255
    gradients = []
    for device in ("cpu", DEVICE):
        trunk = trunk_of(kind, device)
        with ScoringCore() as core:
            core.register(cosine_scorer("mean", trunk) if texts else scorer_of(trunk))
            gradients.append(core.gradient("mean", images, texts)[1].flatten(1))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=1)
    assert (cosine > 0.98).all()


def test_maps_of_where_a_scorer_looks_are_those_of_the_cpu(exact):
    maps = []
    for device in ("cpu", DEVICE):
        with ScoringCore() as core:
            core.register(scorer_of(trunk_of("conv", device, FP32)))
            maps.append(core.explain("mean", POOL[:3], SaliencyOptions()).values)
    np.testing.assert_allclose(maps[1], maps[0], rtol=1e-2, atol=1e-2 * maps[0].max())


def test_noise_of_a_scorer_is_that_of_the_cpu():
    columns = {}
    for device in ("cpu", DEVICE):
        scorer = scorer_of(trunk_of("conv", device, FP32), NoisyHead())
        columns[device] = score(scorer, passes=4, seed=7).epistemic
    assert (columns["cpu"] == columns[DEVICE]).all()
    assert np.unique(columns["cpu"]).size == 24


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_preference_heads_score_and_learn_as_on_the_cpu(kind, exact):
    from embodied_reward.scoring import Role

    def trained(device):
        head = make(kind, 64).to(device)
        x = np.random.default_rng(1).normal(size=(20, 2, 64))
        choices = sets_of(x, np.zeros((20, 1), int))
        items = choices.items
        choices = _moved(choices, device)
        head.fit_input(items.features.to(device))
        fit(head, choices, steps=3)
        head.fit_output(choices.items)
        return head

    roles = [Role.BEFORE, Role.AFTER] if kind == "reference" else [Role.CURRENT] * 2
    columns = dict(
        role=np.array(roles * 12, np.uint8),
        group=np.arange(12) // 3,
        offsets=np.arange(0, 25, 2),
        passes=0 if kind != "uncertainty" else 4,
        seed=5,
    )
    found = [
        score(scorer_of(trunk_of("conv", d, FP32), trained(d)), **columns) for d in ("cpu", DEVICE)
    ]
    a, b = (f.require_ok() for f in found)
    assert np.abs(a - b).max() <= 0.02 * a.std() + 1e-5
    for name in ("aleatoric", "epistemic"):
        one, other = (getattr(f, name) for f in found)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=0.05, atol=1e-3)


def _moved(choices, device):
    from dataclasses import replace

    items = replace(
        choices.items,
        features=choices.items.features.to(device),
        time=choices.items.time.to(device),
    )
    return replace(choices, items=items)


def test_scores_through_shared_memory_are_bit_equal(tmp_path):
    with ScoringCore(mode="strict", cache=FeatureCache()) as core:
        core.register(scorer_of(trunk_of("vit")))
        request = ScoreRequest(scorers="mean", frames=POOL)
        direct = core.score(request)
        with RingServer(core) as server, RingClient(server.address) as client:
            assert (client.score(request)["mean"].score == direct["mean"].score).all()


class Unforeseen(EncoderTrunk):
    """Waits for the device in a way that no operation shows."""

    def forward(self, inputs):
        torch.cuda.synchronize()
        return super().forward(inputs)


class Looking(EncoderTrunk):
    """Looks at the pictures on the host."""

    def forward(self, inputs):
        if (inputs.flatten(1).amin(1) > 2).any():
            raise ValueError("impossible")
        return super().forward(inputs)


@on_gpu
@pytest.mark.parametrize("kind", [Looking, Unforeseen])
def test_a_trunk_that_cannot_be_captured_runs_without(kind):
    encoder = trunk_of("conv").encoder
    expected = score(scorer_of(EncoderTrunk(encoder)), graphs=False).require_ok()
    with ScoringCore() as core:
        core.register(scorer_of(kind(encoder)))
        with pytest.warns(UserWarning, match="cannot be captured"):
            first = core.score(ScoreRequest(scorers="mean", frames=POOL))["mean"].require_ok()
        assert (first == expected).all()
        # A capture that failed must not keep memory from being used again.
        reserved = torch.cuda.memory_reserved()
        frames = pictures(512, seed=3)
        for _ in range(20):
            core.score(ScoreRequest(scorers="mean", frames=frames))["mean"].require_ok()
        assert torch.cuda.memory_reserved() - reserved < 1 << 30
    # Other trunks are captured as before.
    runner = Runner(EncoderTrunk(encoder), max_batch=64, canonical=None)
    runner.launch(list(POOL)).wait()
    assert runner._graphed.captures == 1


class Hungry(EncoderTrunk):
    """Needs `bytes_each` of device memory for every picture."""

    bytes_each = 0

    def forward(self, inputs):
        torch.empty(len(inputs) * self.bytes_each, dtype=torch.uint8, device=inputs.device)
        return super().forward(inputs)


@on_gpu
def test_a_batch_that_does_not_fit_is_scored_picture_by_picture():
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    trunk = Hungry(trunk_of("conv").encoder)
    expected = score(scorer_of(trunk), POOL[:8], graphs=False).require_ok()
    trunk.bytes_each = free // 6
    found = score(scorer_of(trunk), POOL[:8]).require_ok()
    assert np.abs(found - expected).max() <= 0.1 * expected.std()


@on_gpu
def test_a_request_that_never_fits_is_told_so_and_the_service_goes_on():
    trunk = Hungry(trunk_of("conv").encoder)
    with ScoringCore() as core:
        core.register(scorer_of(trunk))
        core.register(scorer_of(trunk_of("vit"), name="other"))
        trunk.bytes_each = torch.cuda.mem_get_info()[1]
        for _ in range(2):
            both = core.score(ScoreRequest(scorers=("mean", "other"), frames=POOL[:4]))
            assert not both["mean"].ok.any()
            assert np.isnan(both["mean"].score).all()
            assert "out of memory" in both["mean"].detail[0]
            assert both["other"].ok.all()
        trunk.bytes_each = 0
        assert core.score(ScoreRequest(scorers="mean", frames=POOL[:4]))["mean"].ok.all()


@on_gpu
def test_captures_do_not_disturb_a_training_thread():
    stop, errors, steps = threading.Event(), [], []

    def train():
        try:
            weight = torch.randn(512, 512, device=DEVICE, requires_grad=True)
            while not stop.is_set():
                # Drawn on the CPU: torch refuses a GPU's random numbers during any capture.
                x = torch.randn(int(np.random.default_rng().integers(64, 4096)), 512).to(DEVICE)
                (x @ weight).square().mean().backward()
                steps.append(float(weight.grad.sum()))
                weight.grad = None
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for kind in KINDS:
            scorer = scorer_of(trunk_of(kind))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for n in (1, 4, 24):
                    score(scorer, POOL[:n]).require_ok()
    finally:
        stop.set()
        thread.join()
    assert not errors
    assert steps
    assert np.isfinite(steps).all()


@on_gpu
def test_without_graphs_a_training_thread_may_draw_on_the_gpu():
    stop, errors = threading.Event(), []

    def draw():
        try:
            while not stop.is_set():
                torch.randn(256, 256, device=DEVICE).sum().item()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for kind in KINDS:
            score(scorer_of(trunk_of(kind)), graphs=False).require_ok()
    finally:
        stop.set()
        thread.join()
    assert not errors


@on_gpu
def test_features_can_be_used_on_any_stream():
    trunk = trunk_of("vit")
    other = torch.cuda.Stream()
    with ScoringCore() as core:
        expected = core.embed(trunk, POOL)
        for _ in range(20):
            features = core.embed(trunk, POOL)
            with torch.cuda.stream(other):
                assert torch.equal(features, expected)


@on_gpu
def test_memory_does_not_grow_with_the_number_of_requests():
    trunk = trunk_of("conv")
    with ScoringCore() as core:
        core.register(scorer_of(trunk))

        def load(seed):
            frames = pictures(200, seed=seed)
            core.score(ScoreRequest(scorers="mean", frames=frames))["mean"].require_ok()

        for seed in range(5):
            load(seed)
        before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        for seed in range(40):
            load(seed)
        assert torch.cuda.memory_allocated() - before[0] < 1 << 22
        assert torch.cuda.memory_reserved() - before[1] < 1 << 26


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_transport_plans_are_those_of_the_cpu(epsilon):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, 12, 8, dtype=FP64, generator=generator) for _ in range(2))
    rows = torch.arange(12) < torch.tensor([12, 7, 9, 12, 5])[:, None]
    cost = cosine_cost(x, y)
    plans = [
        transport(cost.to(d), epsilon, rows=rows.to(d), columns=rows.to(d)) for d in ("cpu", DEVICE)
    ]
    assert all(p.converged.all() for p in plans)
    torch.testing.assert_close(plans[1].plan.cpu(), plans[0].plan, rtol=1e-7, atol=1e-10)
