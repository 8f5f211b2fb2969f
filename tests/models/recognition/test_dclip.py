"""DCLIP's model: its losses and predictions, what learns, what is saved, what is refused."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict

from mmclipdis.clip.text.vocabulary import Vocabulary
from mmclipdis.clip.weights import arch_mark
from mmclipdis.evaluation.multi_label_metric import MultiLabelMetric
from mmclipdis.losses.asymmetric import asymmetric_loss
from mmclipdis.losses.mfi import mfi_loss
from mmclipdis.models import CLIPResNet
from mmclipdis.models.recognition.dclip import DCLIP
from tests.models.recognition.tiny_dclip import NAMES, SIDE, WIDTH, batch, build, config, samples
from tests.tiny import tiny_resnet_arch

RESNET = dict(type="CLIPResNet", arch=tiny_resnet_arch())
KINDS = pytest.mark.parametrize("kind", ["vit", "resnet"])


def of_kind(kind: str, resnet: dict | None = None, **changes) -> DCLIP:
    if kind == "vit":
        return build(**changes)
    text = dict(tiny_resnet_arch()["text_cfg"], vocab_size=49408)
    arch = dict(tiny_resnet_arch(), text_cfg=text)
    options = dict(type="OpenCLIPTextEncoder", arch=arch, cache_dir=False, progress=False)
    encoder = dict(RESNET, arch=arch, **(resnet or {}))
    return build(encoder=encoder, text_encoder=options, **changes)


def naive_logits(model: DCLIP, images: torch.Tensor, pool_first: bool = False) -> torch.Tensor:
    """z (B, N) by loops; ``pool_first`` swaps the order of projecting and pooling."""
    dense = model.encoder.dense(images)
    rows = []
    for number in range(len(images)):
        tokens = list(dense.map[number].flatten(1).T)
        if dense.mean_token is not None:
            tokens.append(dense.mean_token[number])
        row = []
        for name in NAMES:
            pair = []
            for prompt in ("Not a photo of a {}", "A photo of a {}"):
                raw = model.text.encoder.embed(Vocabulary.from_names([name], prompt))
                text = model.projectors.text(raw)[0]
                projected = torch.stack([model.projectors.image(token) for token in tokens])
                cosines = F.cosine_similarity(projected, text[None])
                weights = (20 * cosines).softmax(0)
                pooled = (weights * 20 * cosines).sum()
                if pool_first:
                    unit = F.normalize(torch.stack(tokens), dim=1)
                    weights = (20 * F.cosine_similarity(unit, raw)).softmax(0)
                    pooled = 20 * F.cosine_similarity(
                        model.projectors.image(weights @ unit), text, dim=0
                    )
                pair.append(5 * pooled)
            row.append(pair[1] - pair[0])
        rows.append(torch.stack(row))
    return torch.stack(rows)


@KINDS
@pytest.mark.parametrize("order", ["project_pool", "pool_project"])
def test_losses_and_predictions_are_those_of_a_naive_loop(kind, order):
    model = of_kind(kind, order=order).train()
    images, labelled = batch()
    first = order == "pool_project"
    z = naive_logits(model, images, first)
    assert not torch.allclose(z, naive_logits(model, images, not first), atol=0.01)
    losses = model(images, labelled, mode="loss")
    assert set(losses) == {"loss_asl", "loss_mfi"}
    target = torch.stack([sample.gt_score for sample in labelled])
    torch.testing.assert_close(losses["loss_asl"], 0.05 * asymmetric_loss(z, target))
    text = model.class_features()
    torch.testing.assert_close(losses["loss_mfi"], 7e-5 * mfi_loss(text))
    assert text.shape == (2 * len(NAMES), 8)
    model.eval()
    pairs = model(images)
    torch.testing.assert_close(pairs[:, 1] - pairs[:, 0], z, rtol=1e-4, atol=1e-4)
    for sample, row in zip(model(images, labelled, mode="predict"), z, strict=True):
        assert sample.pred_logit.dtype == torch.float32
        torch.testing.assert_close(sample.pred_logit, row.detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sample.pred_score, sample.pred_logit.sigmoid())
        torch.testing.assert_close(
            sample.pred_score,
            pairs[int(sample.img_path[6])].detach().softmax(0)[1],
        )


def test_tokens_are_the_map_row_by_row_behind_the_mean_token():
    images = batch()[0]
    model = of_kind("resnet")
    tokens = model.tokens(images)
    assert tokens.shape == (2, 5, WIDTH) and not tokens.requires_grad
    dense = model.encoder.dense(images)
    assert torch.equal(tokens[:, 0], dense.mean_token)
    assert torch.equal(tokens[:, 2], dense.map[:, :, 0, 1])
    without = of_kind("resnet", mean_token=False).tokens(images)
    assert torch.equal(without, tokens[:, 1:])
    silent = dict(resnet=dict(mean_token=False))
    with pytest.raises(ValueError, match=r"asks for the mean token, .*set model.mean_token=False"):
        of_kind("resnet", **silent)
    assert torch.equal(of_kind("resnet", **silent, mean_token=False).tokens(images), without)
    assert of_kind("vit").tokens(images).shape == (2, (SIDE // 16) ** 2, WIDTH)


def test_images_and_their_tokens_give_the_same():
    model, (images, labelled) = build(), batch()
    tokens = model.tokens(images)
    one, other = (model(x, labelled, mode="loss") for x in (images, tokens))
    for name, value in one.items():
        assert torch.equal(value, other[name])
    assert torch.equal(model(images), model(tokens))
    with pytest.raises(ValueError, match=r"tokens \(B, L, 32\), got \(2, 5, 16\)"):
        model(torch.zeros(2, 5, 16))


@KINDS
def test_only_projectors_learn_and_clip_stays_bit_by_bit(kind):
    model = of_kind(kind).train()
    images, labelled = batch()
    frozen = {
        name: value.clone()
        for part in ("encoder", "text")
        for name, value in getattr(model, part).state_dict().items()
    }
    before = {name: value.clone() for name, value in model.projectors.named_parameters()}
    assert model.training and not model.encoder.training
    learning = [p for p in model.parameters() if p.requires_grad]
    assert len(learning) == len(before) == 5
    optimizer = torch.optim.SGD(learning, lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(2):
        optimizer.zero_grad()
        sum(model(images, labelled, mode="loss").values()).backward()
        optimizer.step()
    for name, value in model.projectors.named_parameters():
        assert not torch.equal(value, before[name]), name
    for part in ("encoder", "text"):
        assert not getattr(model, part).training
        for name, value in getattr(model, part).state_dict().items():
            assert torch.equal(value, frozen[name]), name
    norm = model.projectors.text[1]
    assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))
    assert torch.equal(norm.running_var, torch.ones_like(norm.running_var))


def test_training_lowers_the_loss():
    model = build().train()
    images, labelled = batch(images=6)
    optimizer = torch.optim.SGD(model.projectors.parameters(), lr=0.05, momentum=0.9)
    values = []
    for _ in range(30):
        loss = sum(model(images, labelled, mode="loss").values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.3 * values[0]


def test_without_mfi_there_is_no_such_loss():
    assert set(build(mfi=None)(*batch(), mode="loss")) == {"loss_asl"}


def test_options_reach_the_pooling():
    images = batch()[0]
    plain = build()(images)
    positive = build(pooling="positive")(images)
    assert torch.equal(plain[:, 1], positive[:, 1])
    assert not torch.equal(plain[:, 0], positive[:, 0])
    torch.testing.assert_close(build(logit_scale=10.0)(images), 2 * plain)
    assert not torch.allclose(build(logit_temperature=2.0, logit_scale=50.0)(images), plain)
    other = build(prompts=("no {}", ["a {}", "the {}"]))
    assert not torch.allclose(other(images), plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_everything_behind_clip_is_float32(dtype):
    model, (images, labelled) = build().train(), batch()
    tokens = model.tokens(images)
    plain = model(tokens, labelled, mode="loss")
    with torch.autocast("cpu", dtype=dtype):
        losses = model(tokens, labelled, mode="loss")
        whole = model(images, labelled, mode="loss")
    for name, value in plain.items():
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], value, rtol=0, atol=0)
        torch.testing.assert_close(whole[name], value, rtol=0.1, atol=0)
    sum(whole.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.projectors.parameters())


def test_checkpoints_hold_the_projectors_only(tmp_path):
    model = build()
    state = get_state_dict(model)
    names = {f"projectors.{name}" for name in model.projectors.state_dict()}
    assert set(state) == names
    assert "projectors.arch" in names
    path = str(tmp_path / "run.pth")
    save_checkpoint({"state_dict": state, "meta": {}}, path)
    images = batch()[0]
    for load in (
        lambda new: load_checkpoint(new, path, strict=True),
        lambda new: new.load_state_dict(state, strict=True),
    ):
        new = build()
        torch.nn.init.normal_(new.projectors.image.weight)
        assert not torch.equal(new(images), model(images))
        load(new)
        assert torch.equal(new(images), model(images))
    with pytest.raises(ValueError, match="the checkpoint of projectors was trained on the CLIP of"):
        load_checkpoint(of_kind("resnet"), path)


def test_clip_is_loaded_where_only_a_checkpoint_was(tmp_path):
    model, images = build(), batch()[0]
    for name, part in (("image", model.encoder), ("text", model.text.encoder)):
        torch.nn.init.normal_(next(part.parameters()))
        torch.save(part.tower.state_dict(), tmp_path / f"{name}.pt")
    cfg = config()
    for part, name in (("encoder", "image"), ("text_encoder", "text")):
        source = str(tmp_path / f"{name}.pt")
        cfg[part] = dict(cfg[part], init_cfg=dict(type="Pretrained", checkpoint=source))
    torch.manual_seed(9)
    tested = DCLIP(**cfg)
    tested.load_state_dict(model.state_dict())
    assert torch.equal(tested(images), model(images))
    assert torch.equal(tested.class_features(), model.class_features())


def test_projectors_without_weights_predict_nothing():
    def unmeant():
        torch.manual_seed(0)
        return DCLIP(**config())

    (model, loaded, trained), images = (unmeant() for _ in range(3)), batch()[0]
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=r"no weights for projectors \(Projectors\) of DCLIP"
        ):
            model(images, mode="predict")
    model(images)
    loaded.load_state_dict(model.state_dict())
    trained(*batch(), mode="loss")
    for one in (loaded, trained):
        one(images, mode="predict")


def test_a_clip_without_weights_is_told_once():
    images = batch()[0]
    model = DCLIP(**config())
    with pytest.warns(UserWarning, match="CLIPViT uses random weights"):
        model.tokens(images)
    with pytest.warns(UserWarning, match="OpenCLIPTextEncoder uses random weights"):
        model(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(images)
        build()(images)
    named = dict(type="Pretrained", checkpoint="none.pt")
    half = DCLIP(**config(text_encoder=dict(config()["text_encoder"], init_cfg=named)))
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        half(images)


def other_clip(**changes) -> DCLIP:
    model = build(**changes)
    with torch.no_grad():
        next(model.encoder.tower.parameters()).flatten()[0] += 1e-3
    return model


def test_projectors_of_a_clip_with_other_weights_are_refused():
    model, images = build(), batch()[0]
    assert "projectors.clip" not in model.state_dict()  # CLIP may not have its weights yet
    model(images)
    state = model.state_dict()
    assert len(state["projectors.clip"]) == 64
    message = r"other weights than those in use .*init_cfg=dict\(.*any_arch=True"
    for used in (False, True):
        other, same = other_clip(), build()
        if used:  # a checkpoint that is loaded later is compared, too
            other(images), same(images)
        for one in (other, same):
            one.load_state_dict(state, strict=True)
        assert torch.equal(same(images), model(images))
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                other(images)
            with pytest.raises(ValueError, match=message):
                other.class_features()
    free = other_clip(projectors=dict(out_dim=8, any_arch=True))
    free.load_state_dict(state)
    assert free(images).isfinite().all()
    assert not torch.equal(free.state_dict()["projectors.clip"], state["projectors.clip"])
    # a file without the mark, into a model that had one
    other.load_state_dict({k: v for k, v in state.items() if k != "projectors.clip"})
    other(images)
    double = build().double()
    double.load_state_dict(state)
    assert double(images.double()).isfinite().all()


def test_the_weights_of_clip_are_hashed_once(monkeypatch):
    asked = []
    read = arch_mark.weights_fingerprint
    monkeypatch.setattr(arch_mark, "weights_fingerprint", lambda *a: asked.append(a) or read(*a))
    model = build()
    for _ in range(3):
        model(*batch(), mode="loss")
        model.state_dict()
    assert len(asked) == 1


def test_classes_can_change():
    model, images = build(vocabulary="dataset"), batch()[0]
    assert model.follow_dataset and model.vocabulary is None
    with pytest.raises(RuntimeError, match="no class names yet"):
        model(images)
    model.set_vocabulary(NAMES)
    assert torch.equal(model(images), build()(images))
    model.set_vocabulary(["zebra", *NAMES])
    assert model.vocabulary.num_classes == 4
    torch.testing.assert_close(model(images)[:, :, 1:], build()(images))
    assert model(images, mode="predict")[0].pred_score.shape == (4,)


def test_labels_of_other_classes_are_refused():
    model, (images, _) = build(), batch()
    wrong = samples(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"photo_0.jpg labels \(4,\) classes, the model knows 3"):
        model(images, wrong, mode="loss")
    for sample in wrong:
        del sample.gt_score
    with pytest.raises(ValueError, match=r"photo_0.jpg has no gt_score.*PackMultiLabelInputs"):
        model(images, wrong, mode="loss")
    for sample in wrong:
        sample.gt_label = torch.tensor([0])  # mmpretrain's; the metric would not know it
    with pytest.raises(ValueError, match=r"photo_0.jpg has no gt_score"):
        model(images, wrong, mode="loss")


def test_predictions_that_are_not_numbers_name_the_images_and_the_iteration(monkeypatch):
    model, (images, labelled) = build(), batch()
    images[1, 0, 0, 0] = torch.nan
    predicted = model(images, labelled, mode="predict")
    monkeypatch.setitem(MessageHub.get_current_instance().runtime_info, "iter", 4)
    with pytest.raises(ValueError, match=r"after iteration 5 are nan .*: photo_1.jpg;"):
        MultiLabelMetric().process(None, [sample.to_dict() for sample in predicted])


def test_parts_that_do_not_fit_are_refused():
    encoder, text = config()["encoder"], config()["text_encoder"]
    with pytest.raises(ValueError, match=r"encoder stays as it is: give it trainable=\(\)"):
        build(encoder=dict(encoder, trainable=("all",)))
    with pytest.raises(ValueError, match=r"text_encoder trainable=\(\)"):
        build(text_encoder=dict(text, trainable=("all",)))
    with pytest.raises(ValueError, match="image and text must be of one CLIP"):
        build(encoder=RESNET)
    with pytest.raises(
        ValueError, match="order must be one of project_pool, pool_project, got 'x'"
    ):
        build(order="x")
    with pytest.raises(ValueError, match="pooling must be one of"):
        build(pooling="max")
    with pytest.raises(ValueError, match="prompts must be the negative and the positive one"):
        build(prompts=("A photo of a {}",))
    with pytest.raises(ValueError, match="one name a class"):
        build(vocabulary=[["cat", "kitten"], "dog"])
    with pytest.raises(ValueError, match="32 channels, the projectors take 16"):
        build(projectors=MODELS.build(dict(type="Projectors", in_dim=16)))
    with pytest.raises(ValueError, match="mode must be"):
        build()(batch()[0], mode="train")
    assert isinstance(of_kind("resnet").encoder, CLIPResNet)


def test_the_preprocessor_batches_images_of_one_size_and_tokens():
    model, (_, labelled) = build(), batch()
    pixels = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    data = dict(inputs=pixels, data_samples=labelled)
    images = model.data_preprocessor(data)["inputs"]
    red = (pixels[1][2].float() - 122.7709383) / 68.5005327  # BGR on the disk
    torch.testing.assert_close(images[1, 0], red)
    found = model.val_step(data)
    direct = model(images, mode="predict")
    assert torch.equal(found[1].pred_logit, direct[1].pred_logit)
    tokens = model.tokens(images)
    kept = model.val_step(dict(inputs=list(tokens), data_samples=labelled))
    assert torch.equal(kept[1].pred_logit, direct[1].pred_logit)
    pixels[1] = pixels[1][:, :48]
    with pytest.raises(ValueError, match=r"different sizes .*3 x 48 x 64, 3 x 64 x 64.*Resize"):
        model.val_step(data)


@KINDS
def test_a_pickled_model_gives_the_same_and_saves_its_projectors_only(kind):
    model = of_kind(kind).eval()
    copied = pickle.loads(pickle.dumps(model))
    images, _ = batch()
    assert torch.equal(copied(images), model(images))
    assert set(copied.state_dict()) == set(model.state_dict())


@KINDS
def test_a_copy_shares_the_weights_that_checkpoints_leave_out(kind):
    """``EMAHook`` copies before weights are loaded, and exchanges parameters in evaluation."""
    model = of_kind(kind)
    copied = copy.deepcopy(model)
    for name in ("encoder", "text"):
        own, other = getattr(model, name), getattr(copied, name)
        assert own is not other
        assert all(a is b for a, b in zip(own.parameters(), other.parameters(), strict=True))
    pairs = zip(model.projectors.parameters(), copied.projectors.parameters(), strict=True)
    assert not any(a is b for a, b in pairs)
