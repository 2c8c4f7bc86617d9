"""Saliency: identities, planted patches, conservation, weight randomisation, blindness, errors."""

import numpy as np
import pytest
import torch
from torch import nn

from embodied_reward.errors import ConfigError
from embodied_reward.vision.encoders import ConvEncoder, TransformersEncoder
from embodied_reward.vision.saliency import SaliencyOptions, Target, explain
from embodied_reward.vision.saliency.attention import rollout
from embodied_reward.vision.saliency.lrp import LrpRules, lrp
from embodied_reward.vision.saliency.normgrad import location_norms, normgrad
from embodied_reward.vision.saliency.regions import region_map, region_sums, superpixels

SIZE = 32
PATCH = (slice(8, 16), slice(16, 24))  # the only place that anything here is planted


def pictures(n=3, seed=0):
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def conv(seed=0, dim=16):
    torch.manual_seed(seed)
    return ConvEncoder("conv64", dim, SIZE).eval()


def target_of(network, images=None, head=None):
    """A linear head on the network's features, or another one."""
    images = pictures() if images is None else images
    weight = torch.randn(16, generator=torch.Generator().manual_seed(7))
    head = head or (lambda z: z.flatten(1)[:, :16] @ weight[: z.flatten(1).shape[1]])
    return Target(network, images, lambda x: head(network(x)))


def vit(kind="vit", seed=0):
    import transformers as t

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"image_size": SIZE, "patch_size": 8}
    small = {**sizes, "intermediate_size": 32}
    model = {
        "vit": lambda: t.ViTModel(t.ViTConfig(**small)),
        "mean": lambda: t.ViTModel(t.ViTConfig(**small), add_pooling_layer=False),
        "clip": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**small)),
        "siglip": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**small)),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**sizes)),
        "registers": lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**sizes)),
    }[kind]()
    return TransformersEncoder(model, mean=[0.5] * 3, std=[0.5] * 3, image_size=SIZE).eval()


ENCODERS = {"normgrad": conv, "lrp": conv, "attention": lambda seed=0: vit(seed=seed)}


# --- identities ---


def test_normgrad_is_the_gradient_of_an_identity_convolution_of_each_location():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, 4, 3, generator=rng, dtype=torch.float64)
    own = torch.eye(5, dtype=torch.float64).expand(4, 3, 5, 5).clone().requires_grad_(True)
    plain = x.clone().requires_grad_(True)

    def score(features):
        return (features.tanh() * torch.arange(60.0).reshape(1, 5, 4, 3)).square().sum()

    (each,) = torch.autograd.grad(score(torch.einsum("hwij,njhw->nihw", own, x)), own)
    (g,) = torch.autograd.grad(score(plain), plain)
    found = location_norms(x, g)[0]
    torch.testing.assert_close(found, each.flatten(2).norm(dim=2), rtol=1e-13, atol=0)


def test_normgrad_of_a_layer_is_that_of_its_output_and_gradient():
    network = conv()
    target = target_of(network)
    x = network.body[:3](pictures() * 2 - 1).detach().requires_grad_(True)
    z = network.head(network.body[3:](x))
    weight = torch.randn(16, generator=torch.Generator().manual_seed(7))
    (g,) = torch.autograd.grad((z @ weight).sum(), x)
    expected = torch.nn.functional.interpolate(
        location_norms(x, g)[:, None], (SIZE, SIZE), mode="bilinear"
    )[:, 0]
    expected = (expected / expected.sum((1, 2), keepdim=True)).numpy()
    np.testing.assert_allclose(normgrad(target, ["body.2"]).values, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("combine", ["product", "mean"])
def test_layers_are_combined(combine):
    target = target_of(conv())
    alone = [normgrad(target, [name]).values for name in ("body.2", "body.5")]
    both = normgrad(target, ["body.2", "body.5"], combine).values
    expected = np.sqrt(alone[0] * alone[1]) if combine == "product" else (alone[0] + alone[1]) / 2
    expected /= expected.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(both, expected, rtol=1e-6, atol=1e-12)
    # By default the end of each resolution from 8 x 8 cells on, which here are these two.
    np.testing.assert_allclose(normgrad(target, combine=combine).values, both)


def test_relevance_in_a_linear_model_is_gradient_times_input():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 1))
    target = Target(network, pictures(), lambda x: network(x).squeeze(-1))
    found = lrp(target, LrpRules(box=False))
    exact = pictures().double() * network[1].weight.detach().double().reshape(1, 3, SIZE, SIZE)
    torch.testing.assert_close(found.pixels, exact, rtol=1e-6, atol=1e-9)
    bias = network[1].bias.item()
    torch.testing.assert_close(found.absorbed, torch.full((3,), bias).double(), rtol=1e-5, atol=0)


# --- conservation ---


@pytest.mark.parametrize("gamma", [0.0, 0.25])
@pytest.mark.parametrize("box", [False, True])
def test_relevance_of_a_network_without_biases_is_the_logit(gamma, box):
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1, bias=False), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 4, 2, 1, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 64, 1, bias=False),
    ).eval()  # fmt: skip
    target = Target(network, pictures(), lambda x: network(x).squeeze(-1))
    logit = network(pictures()).squeeze(-1).double()
    found = lrp(target, LrpRules(gamma=gamma, box=box))
    torch.testing.assert_close(found.start, logit, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.pixels.sum((1, 2, 3)), logit, rtol=1e-4, atol=0)
    assert found.absorbed.abs().max() < 1e-6


@pytest.mark.parametrize("gamma", [0.0, 0.25])
@pytest.mark.parametrize("box", [False, True])
def test_relevance_of_our_encoder_is_conserved_with_what_biases_take(gamma, box):
    network = conv()
    with torch.no_grad():
        for name, values in network.named_parameters():
            if "bias" in name:
                values.normal_(0, 0.1)
    found = lrp(target_of(network), LrpRules(gamma=gamma, box=box))
    arrived = found.pixels.sum((1, 2, 3)) + found.absorbed
    torch.testing.assert_close(arrived, found.start, rtol=1e-4, atol=1e-6)
    assert found.absorbed.abs().max() > 1e-3


def test_stages_compute_what_the_encoder_does():
    from embodied_reward.vision.saliency.chain import chain_of

    network = conv().double()
    chain = chain_of(network)
    x = chain.scaled(pictures().double())
    for stage in chain.stages:
        x = stage.forward(x.flatten(1) if stage.flatten else x)
    torch.testing.assert_close(x, network(pictures().double()), rtol=1e-8, atol=1e-9)


# --- planted patches ---


def share_in_patch(maps):
    return maps.values[:, PATCH[0], PATCH[1]].sum((1, 2))


class OnePatch(nn.Sequential):
    """A network that reads one patch of 8 x 8 pixels and nothing else."""

    def __init__(self):
        torch.manual_seed(3)
        first = nn.Conv2d(3, 8, 8, stride=8)
        super().__init__(first, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 16, bias=False))
        keep = torch.zeros(8, 4, 4)
        keep[:, PATCH[0].start // 8, PATCH[1].start // 8] = 1
        with torch.no_grad():
            self[3].weight *= keep.flatten()


@pytest.mark.parametrize("method", ["normgrad", "lrp"])
def test_a_network_that_reads_one_patch_lights_that_patch(method):
    maps = explain(target_of(OnePatch().eval()), SaliencyOptions(method))
    assert maps.ok.all()
    inside = share_in_patch(maps)
    # The 4 x 4 map of normgrad is resized, which spreads it half a cell to each side.
    assert (inside > (0.99 if method == "lrp" else 0.5)).all()
    assert np.allclose(maps.values[:, :, :8].sum((1, 2)), 0, atol=1e-12)


def planted_vit(kind):
    """A transformer whose values vanish for every patch but one."""
    encoder = vit(kind)

    def blind(module, inputs, output):
        keep = torch.zeros(16, 1)
        keep[PATCH[0].start // 8 * 4 + PATCH[1].start // 8] = 1
        extra = torch.ones(output.shape[1] - 16, 1)
        return output * torch.cat([extra, keep])

    for name, module in encoder.named_modules():
        if name.endswith(("value", "v_proj")) and "head" not in name:
            module.register_forward_hook(blind)
    return encoder


@pytest.mark.parametrize("kind", ["vit", "clip", "dinov2", "registers"])
def test_a_transformer_that_reads_one_patch_lights_that_patch(kind):
    maps = explain(target_of(planted_vit(kind)), SaliencyOptions("attention"))
    assert maps.ok.all()
    # Resized from 4 x 4, half a cell spreads; at uniform the share would be 1 / 16.
    assert (share_in_patch(maps) > 0.5).all()


def test_attention_pooling_is_read_where_it_looks():
    encoder = planted_vit("siglip")
    tower = getattr(encoder.model, "vision_model", encoder.model)
    place = PATCH[0].start // 8 * 4 + PATCH[1].start // 8

    def only(module, args, kwargs):
        mask = torch.full((1, 16), -1e9)
        mask[0, place] = 0
        return args, {**kwargs, "attn_mask": mask}

    tower.head.attention.register_forward_pre_hook(only, with_kwargs=True)
    maps = explain(target_of(encoder), SaliencyOptions("attention"))
    assert (share_in_patch(maps) > 0.5).all()


def test_a_mean_of_tokens_is_read_where_the_tokens_matter():
    encoder = vit("mean")
    values = torch.zeros(17)
    values[1 + PATCH[0].start // 8 * 4 + PATCH[1].start // 8] = 1
    maps = explain(
        Target(
            encoder,
            pictures(),
            lambda x: (encoder.model((x - 0.5) / 0.5).last_hidden_state * values[:, None])
            .sum(1) @ torch.randn(16, generator=torch.Generator().manual_seed(7)),
        ),
        SaliencyOptions("attention"),
    )  # fmt: skip
    assert (share_in_patch(maps) > 0.2).all()  # the others through the attention of this one


def test_a_single_layer_rollout_is_attention_times_gradient():
    torch.manual_seed(0)
    weights, grads = torch.rand(2, 3, 5, 5).softmax(-1), torch.randn(2, 3, 5, 5)
    rows = torch.zeros(2, 5)
    rows[:, 0] = 1
    found = rollout([weights], [grads], rows)[:, 1:]
    expected = (weights * grads).abs().double().mean(1)[:, 0, 1:]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_token_that_only_draws_attention_is_not_salient():
    """Two layers of attention with a sink, which all look at and whose value is nothing."""
    generator = torch.Generator().manual_seed(0)
    tokens = 0.3 * torch.randn(1, 6, 8, generator=generator, dtype=torch.float64)
    sink, planted, wanted = 3, 4, torch.zeros(8, dtype=torch.float64)
    wanted[0] = 1
    logits = torch.zeros(6, 6, dtype=torch.float64)
    logits[:, sink] = 4.0
    value = torch.ones(6, dtype=torch.float64)
    value[sink] = 0
    tokens[0, planted, 0] = 3.0
    weights = [logits.softmax(-1)[None, None].requires_grad_(True) for _ in range(2)]
    for weight in weights:
        tokens = tokens + weight[:, 0] @ (value[:, None] * tokens)
    grads = torch.autograd.grad(tokens[0, 0] @ wanted, weights)
    rows = torch.zeros(1, 6)
    rows[0, 0] = 1
    weights = [weight.detach() for weight in weights]
    fused = rollout(weights, list(grads), rows)[0, 1:]
    alone = rollout(weights, [torch.ones_like(weight) for weight in weights], rows)[0, 1:]
    assert fused.argmax() + 1 == planted
    assert alone.argmax() + 1 == sink
    assert fused[sink - 1] < 0.01 * fused[planted - 1]


def test_attention_is_switched_to_eager_and_back():
    encoder = vit()
    before = encoder.model.config._attn_implementation
    features = encoder(pictures())
    explain(target_of(encoder), SaliencyOptions("attention"))
    assert encoder.model.config._attn_implementation == before != "eager"
    torch.testing.assert_close(encoder(pictures()), features, rtol=0, atol=0)
    assert not any(m._forward_hooks for m in encoder.modules())


# --- the pointing game ---


def paint(image, row, column, colour):
    image[:, row : row + 6, column : column + 6] = torch.tensor(colour)[:, None, None]


def square_and_distractor(n, generator):
    """Pictures, where the orange square is (Bool["n h w"]) and how far to the right [0, 1]."""
    images = 0.15 + 0.05 * torch.rand(n, 3, SIZE, SIZE, generator=generator)
    masks = torch.zeros(n, SIZE, SIZE, dtype=torch.bool)
    at = torch.randint(0, SIZE - 6, (n, 4), generator=generator).tolist()
    for k, (row, column, other_row, other_column) in enumerate(at):
        blue, orange = torch.tensor([0.1, 0.4, 1.0]), torch.tensor([1.0, 0.4, 0.0])
        images[k, :, other_row : other_row + 6, other_column : other_column + 6] = blue[
            :, None, None
        ]
        images[k, :, row : row + 6, column : column + 6] = orange[:, None, None]
        masks[k, row : row + 6, column : column + 6] = True
    return images, masks.numpy(), torch.tensor([column / (SIZE - 6) for _, column, _, _ in at])


@pytest.fixture(scope="module")
def finder():
    """Our encoder, trained for some seconds to say where the orange square is."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, generator = ConvEncoder("conv64", 1, SIZE), torch.Generator().manual_seed(1)
    network.head = network.head[:1]  # no normalisation of a single number
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(120):
        images, _, column = square_and_distractor(16, generator)
        loss = (network(images).squeeze(-1) - column).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02
    return network.eval()


@pytest.mark.parametrize("method", ["normgrad", "lrp"])
def test_the_brightest_pixel_of_a_map_hits_what_the_score_is_about(finder, method):
    images, masks, _ = square_and_distractor(40, torch.Generator().manual_seed(9))
    target = Target(finder, images, lambda x: finder(x).squeeze(-1))
    maps = explain(target, SaliencyOptions(method))
    brightest = maps.values.reshape(40, -1).argmax(1)
    hits = [mask.ravel()[place] for mask, place in zip(masks, brightest, strict=True)]
    assert np.mean(hits) >= 0.9


# --- sanity ---


def unplanted(seed):
    """What `OnePatch` is without its plan."""
    network = OnePatch().eval()
    torch.manual_seed(seed)
    network[0].reset_parameters()
    network[3].reset_parameters()
    return network


# method -> a network whose weights were chosen, and the same with weights that were not
PLANTED = {
    "normgrad": (lambda: OnePatch().eval(), unplanted),
    "lrp": (lambda: OnePatch().eval(), unplanted),
    "attention": (lambda: planted_vit("vit"), lambda seed: vit(seed=seed)),
}


@pytest.mark.parametrize("method", PLANTED)
def test_other_weights_give_another_map(method):
    """Adebayo et al. 2018: a map that survives new weights explains the picture, not the model."""
    options, (planted, fresh) = SaliencyOptions(method), PLANTED[method]
    same = [explain(target_of(planted()), options).values.ravel() for _ in range(2)]
    other = [explain(target_of(fresh(seed)), options).values.ravel() for seed in (1, 2, 3)]
    np.testing.assert_allclose(*same, rtol=1e-6, atol=1e-12)
    alike = [np.corrcoef(same[0], values)[0, 1] for values in other]
    assert max(alike) < 0.5


@pytest.mark.parametrize("method", ENCODERS)
@pytest.mark.parametrize("blind", ["constant", "zero weights", "detached"])
def test_a_blind_score_has_no_map(method, blind):
    head = {
        "constant": lambda z: torch.ones(len(z)),
        "zero weights": lambda z: z.flatten(1).sum(1) * 0 + 1,
        "detached": lambda z: z.detach().flatten(1).sum(1),
    }[blind]
    maps = explain(target_of(ENCODERS[method](), head=head), SaliencyOptions(method))
    assert not maps.ok.any()
    assert np.isnan(maps.values).all()


@pytest.mark.parametrize("method", ENCODERS)
def test_maps_are_shares_and_one_picture_does_not_touch_another(method):
    network, options = ENCODERS[method](), SaliencyOptions(method)
    maps = explain(target_of(network), options)
    assert maps.values.shape == (3, SIZE, SIZE)
    assert (maps.values >= 0).all()
    np.testing.assert_allclose(maps.values.sum((1, 2)), 1)
    alone = explain(target_of(network, pictures()[1:2]), options)
    np.testing.assert_allclose(alone.values[0], maps.values[1], rtol=1e-3, atol=1e-7)
    other = maps.resized(80, 48)
    assert other.values.shape == (3, 80, 48)
    np.testing.assert_allclose(other.values.sum((1, 2)), 1)


def test_nan_in_the_score_is_no_map():
    maps = explain(target_of(conv(), head=lambda z: z[:, 0] * torch.tensor([1.0, torch.nan, 1.0])))
    assert maps.ok.tolist() == [True, False, True]
    assert np.isnan(maps.values[1]).all()


# --- errors ---


def test_an_unknown_layer_lists_the_layers():
    with pytest.raises(ConfigError, match=r"no layer 'body\.99'; it has body, body\.0, body\.1"):
        normgrad(target_of(conv()), ["body.99"])


def test_a_layer_without_a_place_in_the_picture_is_refused():
    with pytest.raises(ConfigError, match=r"'head\.0' puts out 16 numbers"):
        normgrad(target_of(conv()), ["head.0"])


def test_a_method_that_does_not_fit_says_which_does():
    with pytest.raises(ConfigError, match="for vision transformers.*take normgrad or lrp"):
        explain(target_of(conv()), SaliencyOptions("attention"))
    with pytest.raises(ConfigError, match="take attention for a transformer, or normgrad"):
        explain(target_of(vit()), SaliencyOptions("lrp"))
    gelu = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.GELU(), nn.Flatten(), nn.Linear(64, 16))
    with pytest.raises(ConfigError, match="no rule for GELU.*take --saliency=normgrad"):
        explain(target_of(gelu), SaliencyOptions("lrp"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "gradcam"}, "no saliency method 'gradcam'"),
        ({"method": "lrp", "layers": ("body.0",)}, "reads all layers"),
    ],
)
def test_options_without_meaning_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        SaliencyOptions(**fields)


def test_tokens_of_a_transformer_have_a_place_for_normgrad():
    target = target_of(vit())
    first = normgrad(target, ["model.encoder.layer.0"])
    assert first.ok.all()
    # The last block's patches are not read by a class token.
    assert not normgrad(target, ["model.encoder.layer.1"]).ok.any()


# --- regions ---


def test_regions_keep_the_sum_and_point_at_what_was_planted():
    target = target_of(OnePatch().eval())
    labels = np.zeros((SIZE, SIZE), np.int64)
    labels[PATCH] = 1
    labels[:, :8] = 2
    relevance = lrp(target).map[0].numpy()
    sums = region_sums(np.abs(relevance), labels)
    np.testing.assert_allclose(sums.sum(), np.abs(relevance).sum())
    assert sums[1] / sums.sum() > 0.99
    painted = region_map(np.abs(relevance), labels)
    np.testing.assert_allclose(painted.sum(), np.abs(relevance).sum())
    assert len(np.unique(painted.round(12))) <= 3
    lit = painted > painted.max() / 2
    assert (lit == (labels == 1)).all()  # intersection over union 1


def test_superpixels_follow_edges():
    image = np.full((SIZE, SIZE, 3), 40, np.uint8)
    image[PATCH] = (250, 90, 0)
    labels = superpixels(image, 20)
    assert labels.shape == (SIZE, SIZE)
    assert 12 <= labels.max() + 1 <= 36
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    inside = set(np.unique(labels[PATCH]))
    outside = labels.copy()
    outside[PATCH] = -1
    assert not inside & set(np.unique(outside))
    with pytest.raises(ConfigError, match="need 1 to 1024"):
        superpixels(image, 0)
