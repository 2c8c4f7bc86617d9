"""What every head owes the engine, and what single heads promise."""

import json

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from embodied_reward.errors import CheckpointError, ConfigError
from embodied_reward.math.preference import bradley_terry
from embodied_reward.scoring import FeatureCache, Role, ScoreRequest, ScoringCore, Status
from embodied_reward.scoring import registry as registry_module
from embodied_reward.scoring.heads import HEADS, TIE, UNJUDGED, HeadConfig, OnlineDiscriminator
from embodied_reward.scoring.heads.pairing import cross_prompt_pairs
from embodied_reward.scoring.registry import load_scorer, make_scorer, save_scorer
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import ConvEncoder, EncoderConfig, build_encoder
from tests.scoring.heads.conftest import fit, items_of, make, pairs_of, sets_of

KINDS = sorted(HEADS)
DIM = 32


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(0)
    return EncoderTrunk(ConvEncoder("conv64", DIM))


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)


def request(kind, pictures, **more):
    """Twelve pictures as six items of two frames, in groups of three."""
    roles = [Role.BEFORE, Role.AFTER] if kind == "reference" else [Role.CURRENT] * 2
    n = len(pictures) // 2
    columns = {"role": np.array(roles * n, np.uint8), "group": np.arange(n) // 3, **more}
    return ScoreRequest(
        scorers=(kind,), frames=pictures, offsets=np.arange(0, 2 * n + 1, 2), **columns
    )


def trained(kind, dims=("preference",)):
    """A head whose every buffer has been touched."""
    head = make(kind, DIM, dims=dims)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 2, DIM))
    head.fit_input(torch.from_numpy(x).float())
    choices = sets_of(x, np.zeros((20, len(dims)), int))
    fit(head, choices, steps=3)
    head.fit_output(choices.items)
    return head


def ask(scorer, wanted, mode="tolerance"):
    with ScoringCore(cache=FeatureCache(), mode=mode) as core:
        core.register(scorer)
        return core.score(wanted)[scorer.card.name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_scorer_scores_bit_equal(kind, trunk, pictures, tmp_path):
    scorer = make_scorer(kind, trunk, trained(kind), licence="CC0-1.0")
    save_scorer(scorer, tmp_path / "scorer")
    loaded = load_scorer(tmp_path / "scorer")
    assert loaded.card == scorer.card
    before = ask(scorer, request(kind, pictures))
    assert ask(loaded, request(kind, pictures)) == before
    assert before.ok.all()
    assert before.require_ok().std() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_does_not_depend_on_its_neighbours(kind, trunk, pictures):
    scorer = make_scorer(kind, trunk, trained(kind))
    whole = ask(scorer, request(kind, pictures, passes=2), "strict")
    alone = ask(scorer, request(kind, pictures[:6], passes=2), "strict")
    assert np.array_equal(whole.score[:3], alone.score)
    assert np.array_equal(whole.epistemic[:3], alone.epistemic, equal_nan=True)
    loose = ask(scorer, request(kind, pictures, passes=2))
    assert np.allclose(loose.score, whole.score, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_without_its_frames_is_bad_input_and_alone_in_that(kind, trunk, pictures):
    scorer = make_scorer(kind, trunk, trained(kind))
    good = request(kind, pictures)
    role = good.role.copy()
    role[2:4] = Role.GOAL
    reply = ask(scorer, request(kind, pictures, role=role))
    assert reply.status.tolist() == [Status.OK, Status.BAD_INPUT, *[Status.OK] * 4]
    assert "no frame with role" in reply.detail[1]
    if kind != "n_way":  # there the company has changed
        assert np.allclose(reply.score[reply.ok], ask(scorer, good).score[reply.ok], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_several_dimensions_are_learned_and_named(kind):
    """The first feature decides one dimension, the second another; half is not judged."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2, DIM))
    best = np.stack([x[:, 0, 0] < x[:, 1, 0], x[:, 0, 1] < x[:, 1, 1]], 1).astype(int)
    best[:200, 0], best[200:400, 1], best[:5, 1] = UNJUDGED, UNJUDGED, TIE
    head = make(kind, DIM, dims=("quality", "motion"))
    choices = sets_of(x, best)
    fit(head, choices, steps=60, lr=1e-2)
    pairs = choices.pairs()
    assert not np.isin(pairs.row[pairs.dim == 0], np.arange(200)).any()
    right = (head.margins(choices, pairs) > 0).numpy()[~pairs.tie]
    dim = pairs.dim[~pairs.tie]
    # the discriminator knows good from bad, not better from worse, and learns it more slowly
    assert min(right[dim == 0].mean(), right[dim == 1].mean()) > 0.8
    head.fit_output(choices.items)
    if kind not in ("reference", "adversarial"):
        dims = head(choices.items).dims.detach()
        assert dims.mean(0).abs().max() < 1e-4
        assert (dims.std(0, correction=0) - 1).abs().max() < 1e-4
    assert head.dim_names == ("quality", "motion")


def test_attention_pools_ragged_clips_without_padding():
    head = make("bradley_terry", DIM, pool="attention", pool_heads=4)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, DIM))
    alone = head(items_of(rows[:3], offsets=[0, 3])).score
    beside = head(items_of(rows, offsets=[0, 3, 40])).score
    assert torch.allclose(alone[0], beside[0], atol=1e-6)
    shuffled = head(items_of(rows[[2, 0, 1]], offsets=[0, 3])).score
    assert torch.allclose(alone, shuffled, atol=1e-6)
    constant = head(items_of(np.repeat(rows[:1], 5, 0), offsets=[0, 1, 5])).score
    assert torch.allclose(constant[0], constant[1], atol=1e-6)
    with pytest.raises(ConfigError, match="5 attention heads do not divide"):
        make("bradley_terry", DIM, pool="attention", pool_heads=5)


def test_a_head_that_reads_text_needs_it():
    head = make("bradley_terry", DIM, text_dim=DIM)
    rng = np.random.default_rng(0)
    x, texts = rng.normal(size=(3, DIM)), torch.randn(2, DIM)
    output = head(items_of(x, text=[0, 1, -1], text_features=texts))
    assert output.status.tolist() == [Status.OK, Status.OK, Status.BAD_INPUT]
    assert "text" in output.detail[2]
    swapped = head(items_of(x, text=[1, 0, -1], text_features=texts))
    assert not torch.equal(output.score[:2], swapped.score[:2])


def test_features_of_another_trunk_are_refused():
    with pytest.raises(ConfigError, match="reads 32 features per picture, this trunk gives 7"):
        make("bradley_terry", DIM)(items_of(np.zeros((2, 7))))


# --- single heads ---


def test_n_way_is_bit_equal_under_permutation():
    head = make("n_way", DIM)
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 5)
    rows = rng.normal(size=(200, DIM))
    before = head(items_of(rows, group=group)).score.detach().numpy()
    order = rng.permutation(200)
    after = head(items_of(rows[order], group=group[order])).score.detach().numpy()
    assert np.array_equal(after, before[order])


def test_n_way_ignores_the_size_of_other_sets():
    head = make("n_way", DIM)
    rows = np.random.default_rng(0).normal(size=(12, DIM))
    small = head(items_of(rows[:3], group=[0, 0, 0])).score
    beside = head(items_of(rows, group=[0] * 3 + [1] * 9)).score
    assert torch.allclose(small, beside[:3], atol=1e-5)


def test_n_way_with_two_candidates_has_the_gradient_of_bradley_terry():
    rng = np.random.default_rng(0)
    choices = pairs_of(rng.normal(size=(30, DIM)), rng.normal(size=(30, DIM)))
    head = make("n_way", DIM)
    head.loss(choices)[0].backward()
    ours = [p.grad.clone() for p in head.parameters()]
    head.zero_grad()
    scores = head.raw(choices.items)[:, 0].reshape(-1, 2)
    bradley_terry(scores[:, 0] - scores[:, 1]).mean().backward()
    for mine, parameter in zip(ours, head.parameters(), strict=True):
        assert (mine - parameter.grad).abs().max() <= 1e-6


def test_reference_negates_when_before_and_after_are_exchanged():
    head = make("reference", DIM)
    rows = np.random.default_rng(0).normal(size=(3, DIM))
    roles = [Role.BEFORE, Role.AFTER, Role.REFERENCE]
    forth = head(items_of(rows, offsets=[0, 3], role=roles)).score
    back = head(items_of(rows[[1, 0, 2]], offsets=[0, 3], role=roles)).score
    assert torch.allclose(forth, -back, atol=1e-6)
    assert forth.abs() > 1e-4
    same = head(items_of(rows[[0, 0, 2]], offsets=[0, 3], role=roles)).score
    assert same == 0


def test_reference_learns_nearness_to_the_reference_and_can_insist_on_one():
    rng = np.random.default_rng(0)
    x, goal = rng.normal(size=(600, 2, 4)), rng.normal(size=(600, 1, 4))
    nearer = np.linalg.norm(x - goal, axis=2).argmin(1)
    # every candidate carries its comparison's reference
    rows = np.stack([x, np.repeat(goal, 2, 1)], 2).reshape(-1, 4)
    role = np.tile([Role.CURRENT, Role.REFERENCE], 1200)
    items = items_of(rows, offsets=np.arange(0, 2401, 2), role=role)
    choices = sets_of(x, nearer)
    choices = type(choices)(items=items, offsets=choices.offsets, best=choices.best)
    head = fit(make("reference", 4), choices, steps=300)
    assert (head.margins(choices, choices.pairs()) > 0).float().mean() > 0.9
    strict = make("reference", 4, needs_reference=True)
    output = strict(items_of(rows[:2], offsets=[0, 2], role=[Role.BEFORE, Role.AFTER]))
    assert output.status.tolist() == [Status.BAD_INPUT]
    assert output.detail[0] == "the item has no frame with role REFERENCE"


def test_uncertainty_is_fixed_by_content_and_seed():
    head = make("uncertainty", DIM, dropout=0.3)
    rows = np.random.default_rng(0).normal(size=(20, DIM))
    whole = head(items_of(rows, passes=4, seed=7))
    order = np.random.default_rng(1).permutation(20)
    shuffled = head(items_of(rows[order], passes=4, seed=7))
    single = head(items_of(rows[3:4], passes=4, seed=7))
    assert torch.allclose(whole.epistemic[torch.from_numpy(order)], shuffled.epistemic, atol=1e-6)
    assert torch.allclose(whole.epistemic[3], single.epistemic[0], atol=1e-6)
    assert (whole.epistemic > 0).all()
    other = head(items_of(rows, passes=4, seed=8))
    assert not torch.allclose(whole.epistemic, other.epistemic, atol=1e-4)
    assert head(items_of(rows)).epistemic is None


def test_without_dropout_the_uncertain_loss_is_the_plain_one():
    rng = np.random.default_rng(0)
    choices = pairs_of(rng.normal(size=(30, DIM)), rng.normal(size=(30, DIM)))
    head = make("uncertainty", DIM, dropout=0.0)
    loss, logs = head.loss(choices)
    raw = head.raw(choices.items)[:, 0].reshape(-1, 2)
    assert logs["u"] == 0
    assert torch.allclose(loss, bradley_terry(raw[:, 0] - raw[:, 1]).mean(), rtol=1e-6)


class Products(TorchDispatchMode):
    """Count matrix products."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += any(name in str(func) for name in ("mm.", "addmm", "bmm"))
        return func(*args, **(kwargs or {}))


def test_all_members_are_one_product_per_layer():
    items = items_of(np.random.default_rng(0).normal(size=(64, DIM)))
    for members in (2, 50):
        head = make("voting", DIM, members=members)
        with torch.no_grad(), Products() as products:
            head(items)
        assert products.count == 2


def test_a_member_of_a_vote_sees_its_own_bootstrap_sample():
    head = make("voting", DIM, members=8)
    weights = head._bootstrap(np.arange(500))
    assert weights.mean() == pytest.approx(1, abs=0.05)
    assert len(np.unique(weights, axis=1).T) == 8
    assert np.array_equal(head._bootstrap(np.array([3])), weights[3:4])


@pytest.mark.parametrize("review", ["labels", "margin"])
def test_a_review_starts_the_members_afresh(review):
    rng = np.random.default_rng(0)
    choices = pairs_of(rng.normal(size=(30, DIM)) + 0.5, rng.normal(size=(30, DIM)))
    head = make("voting", DIM, review=review)
    first = head.first.weight.clone()
    head.review([choices])
    assert not torch.equal(first, head.first.weight)
    assert torch.isfinite(head.loss(choices)[0])


def test_ties_weigh_on_the_difference():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, DIM)), rng.normal(size=(40, DIM))
    # the marginal likelihood may call a tie by a large sigma instead
    settings = {"heteroscedastic": {"likelihood": "expected"}}
    for kind in (k for k in KINDS if k != "adversarial"):
        head = make(kind, DIM, **settings.get(kind, {}))
        choices = pairs_of(a, b, np.ones(40, bool))
        before = head.margins(choices, choices.pairs()).abs().mean()
        fit(head, choices, steps=60, lr=1e-2)
        assert head.margins(choices, choices.pairs()).abs().mean() < 0.5 * before + 0.05, kind


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("bradley_terry", {"ties": "plian"}, "accepted: plain, win_tie, rao_kupper"),
        ("bradley_terry", {"k": 1.0}, "need k > 1"),
        ("bradley_terry", {"pool": "max"}, "pool='max'"),
        ("heteroscedastic", {"likelihood": "marginl"}, "did you mean 'marginal'"),
        ("n_way", {"width": 30, "attention_heads": 4}, "must divide"),
        ("uncertainty", {"dropout": 1.0}, r"must be in \[0, 1\)"),
        ("voting", {"members": 1}, "at least 2"),
        ("user", {"users": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(kind, DIM, **settings)


def test_every_head_has_its_configuration_under_the_same_name():
    assert set(HeadConfig.get_known_choices()) >= set(HEADS)
    for kind in KINDS:
        assert type(make(kind, DIM).config) is HeadConfig.get_choice_class(kind)


# --- pairs from labels ---


def test_pairs_across_prompts_win_by_label_and_tie_only_what_passed():
    labels = np.array([1, 0, 1, 1, 0, 0, 1])
    winner, loser, tie = cross_prompt_pairs(labels, 500, np.random.default_rng(0), tie_share=0.4)
    assert labels[winner].all()
    assert np.array_equal(labels[loser] == 1, tie)
    assert (winner != loser).all()
    assert tie.mean() == pytest.approx(0.4, abs=0.07)
    assert len(set(zip(winner.tolist(), loser.tolist(), strict=True))) == 4 * 3 + 4 * 3
    single = cross_prompt_pairs([1, 0], 20, np.random.default_rng(0))
    assert not single[2].any()


# --- an online head in the core ---


def test_a_new_discriminator_changes_version_and_scores_but_encodes_nothing(trunk, pictures):
    scorer = make_scorer("adversarial", trunk, make("adversarial", DIM))
    discriminator = OnlineDiscriminator(scorer.head, lr=1e-2)
    wanted = ScoreRequest(scorers=("adversarial",), frames=pictures)
    with ScoringCore(cache=FeatureCache()) as core:
        core.register(scorer)
        first = core.score(wanted)["adversarial"]
        encoded = core.stats()["trunk_images"]
        head = discriminator.update(
            core.embed(trunk, pictures[:6]), core.embed(trunk, pictures[6:])
        )
        assert core.swap_head("adversarial", head) == 1
        second = core.score(wanted)["adversarial"]
        assert core.stats()["trunk_images"] == encoded == 12
    assert (first.head_version, second.head_version) == (0, 1)
    assert first.weights_sha256 != second.weights_sha256
    assert (second.score - first.score)[:6].mean() > (second.score - first.score)[6:].mean()


# --- folders ---


@pytest.fixture
def folder(trunk, tmp_path):
    return save_scorer(make_scorer("mine", trunk, trained("bradley_terry")), tmp_path / "mine")


def test_altered_weights_are_refused(folder):
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="the weights were altered"):
        load_scorer(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "bradley_tery"}, "did you mean 'bradley_terry'"),
        ({"head": {"type": "bradley_terry"}}, "does not describe its weights"),
        ({"trunk": {}}, "does not describe its weights"),
    ],
)
def test_an_edited_config_is_refused(folder, change, message):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        load_scorer(folder)


def test_a_folder_without_a_scorer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no scorer at"):
        load_scorer(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable JSON"):
        load_scorer(tmp_path)


@pytest.fixture
def tiny_vit(tmp_path):
    """A pretrained model as users have it: a folder written by `save_pretrained`."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=DIM, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8,
    )  # fmt: skip
    ViTModel(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


@pytest.mark.parametrize("limit", [64 << 20, 0])
def test_a_small_pretrained_trunk_is_copied_and_a_large_one_named(
    limit, tiny_vit, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry_module, "EMBED_LIMIT", limit)
    source = {"name": str(tiny_vit), "revision": None, "image_size": None}
    trunk = EncoderTrunk(build_encoder(EncoderConfig(**source), 0))
    scorer = make_scorer("mine", trunk, trained("bradley_terry"), extra={"trunk": source})
    folder = save_scorer(scorer, tmp_path / "mine")
    request = ScoreRequest(scorers=("mine",), frames=pictures)
    before = ask(scorer, request)
    assert np.array_equal(ask(load_scorer(folder), request).score, before.score)
    from transformers import ViTModel

    other = ViTModel.from_pretrained(tiny_vit)
    with torch.no_grad():
        other.embeddings.cls_token += 1
    other.save_pretrained(tiny_vit)
    if limit:
        assert np.array_equal(ask(load_scorer(folder), request).score, before.score)
    else:
        with pytest.raises(CheckpointError, match="other weights than the head was trained on"):
            load_scorer(folder)
