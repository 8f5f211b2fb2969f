"""Pretraining of the tiny vision foundation model of ShapeScenes: pictures alone, no labels.

Two crops of a picture, jittered in colour, go through one plain ViT. A patch of the first must find
the patches of the second that lie near it in the picture, among others of the same and of other
pictures: InfoNCE whose positives are a Gaussian around the patch. At the optimum the similarity of
two patches is the pointwise mutual information of "near each other" (Isola et al., Learning Visual
Groups from Co-occurrences in Space and Time, 2015), so what occurs together (the stripes of an
umbrella) becomes alike and what meets by chance (an umbrella and its ground) does not, without
anybody having said what an object is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from mmclipdis.engine.work_folder import lock_work_folder
from mmclipdis.shapes.scene import draw_scene, random_size
from mmclipdis.shapes.training import adamw, clipped_step, learning_rate, resume_run, save_run
from mmclipdis.shapes.vfm import PATCH, build_vfm, normalise
from mmclipdis.utils.letterbox import letterbox
from mmclipdis.utils.processes import each
from mmclipdis.utils.whole_files import write_text

SIDE = 160  # of a stored picture, in pixels
_STREAM = 6_666  # neither the CLIP's pictures nor those of the data sets or of the measures


@dataclass(frozen=True)
class VFMRecipe:
    """Settings of one pretraining run.

    A step takes ``batch`` pictures, two crops of ``side`` pixels of each, and compares ``keys``
    random patches of a crop. ``radius`` is the deviation of the Gaussian of positives, in pixels of
    the picture. Patches of the same picture whose colours (RGB in 0-1) are less than ``alike``
    apart are never negatives. All patches of other pictures together weigh ``others`` times those
    of the same picture: if they weighed much, a feature would tell from which picture it is.
    """

    pictures: int = 8_000
    steps: int = 2_000
    batch: int = 12
    side: int = 96
    keys: int = 64
    radius: float = 14.0
    alike: float = 0.15
    others: float = 0.1
    temperature: float = 0.4
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 2 or self.pictures < self.batch or self.steps < 1:
            raise ValueError("batch must be at least 2, pictures at least batch, steps at least 1")
        if self.side < 1 or self.side % PATCH:
            raise ValueError(f"side ({self.side}) must be a multiple of the patch, {PATCH} px")


def draw_picture(index: int, seed: int) -> NDArray[np.uint8]:
    """Picture number ``index``, ``(SIDE, SIDE, 3)`` uint8 RGB: a scene with its longer side SIDE,
    padded with black right or below, as DeCLIP's teacher sees it. Its labels are dropped.
    """
    rng = np.random.default_rng([_STREAM, seed, index])
    scene = draw_scene(rng, random_size(rng), "scene")
    return letterbox(Image.fromarray(scene.image), SIDE)


def make_pictures(folder: Path, count: int, *, seed: int, workers: int = 1) -> NDArray[np.uint8]:
    """Draws ``count`` pictures into ``folder``, or opens what is there: ``(n, SIDE, SIDE, 3)``.

    Raises ValueError if ``folder`` holds pictures of other settings.
    """
    settings = f"{count} {seed} {SIDE}"
    done, images_at = folder / "done", folder / "pictures.npy"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        images = open_memmap(images_at, "w+", np.uint8, (count, SIDE, SIDE, 3))
        job = partial(draw_picture, seed=seed)
        for i, image in enumerate(
            each(job, range(count), workers, title="draw pictures", spawn=True)
        ):
            images[i] = image
        images.flush()
        write_text(done, settings)  # last: from now on the folder counts
    if done.read_text() != settings:
        raise ValueError(
            f"{folder} holds pictures of other settings (count seed side: {done.read_text()}, "
            f"asked for {settings}); name another folder or delete it"
        )
    return np.asarray(np.load(images_at, mmap_mode="r"))


def random_view(pictures: Tensor, side: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random crop of each picture, perhaps mirrored, in changed colours.

    Args:
        pictures: ``(B, 3, S, S)`` in 0-1.
        side: Of the crops after resizing, in pixels; a multiple of the patch size.
        random: Source of all that is random.

    Returns:
        Normalised crops ``(B, 3, side, side)``, and where the centres of their patches lie in the
        picture: ``(B, N, 2)`` x and y in pixels, row by row.
    """
    count, full = len(pictures), pictures.shape[-1]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((count, *shape), generator=random)

    # half the width of the crop, in halves of the picture; crops stay inside
    half = torch.sqrt(uniform(0.2, 0.8))
    centre = uniform(-1, 1, 2) * (1 - half)[:, None]
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = half * mirror, half, centre
    grid = F.affine_grid(theta, [count, 3, side, side], align_corners=False)
    crops = F.grid_sample(pictures, grid, align_corners=False)
    grid_side = side // PATCH
    places = F.affine_grid(theta, [count, 3, grid_side, grid_side], align_corners=False)
    places = (places.flatten(1, 2) + 1) * full / 2
    blurred = F.avg_pool2d(F.pad(crops, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    crops = torch.lerp(crops, blurred, uniform(-0.5, 1.0, 1, 1, 1).clamp(min=0))
    grey = crops.mean(dim=1, keepdim=True)
    crops = torch.lerp(grey, crops, uniform(0.7, 1.3, 1, 1, 1))  # saturation
    level = crops.mean(dim=(1, 2, 3), keepdim=True)
    crops = torch.lerp(level, crops, uniform(0.8, 1.2, 1, 1, 1))  # contrast
    crops = crops * uniform(0.8, 1.2, 1, 1, 1) * uniform(0.95, 1.05, 3, 1, 1)
    noise = torch.randn(crops.shape, generator=random) * uniform(0, 0.02, 1, 1, 1)
    return normalise((crops + noise).clamp(0, 1)), places


def local_colours(pictures: Tensor, places: Tensor) -> Tensor:
    """Colour around each place: ``(B, 3, S, S)``, ``(B, M, 2)`` in pixels -> ``(B, M, 3)``."""
    blurred = F.avg_pool2d(pictures, PATCH)
    grid = (places * 2 / pictures.shape[-1] - 1)[:, None]
    return F.grid_sample(blurred, grid, align_corners=False)[:, :, 0].transpose(1, 2)


def neighbour_loss(
    first: Tensor, second: Tensor, distance: Tensor, alike: Tensor, recipe: VFMRecipe
) -> Tensor:
    """InfoNCE of the patches of one view against those of the other, positives being neighbours.

    A picture's own patches beyond two radii are negatives unless they look alike; all patches of
    other pictures are.

    Args:
        first: Features ``(B, M, C)`` of M patches in each of B pictures.
        second: The same of other views of these pictures.
        distance: Between the patches of ``first`` and of ``second`` in the picture,
            ``(B, M, M)`` in pixels.
        alike: Which of these pairs have much the same colour, ``(B, M, M)`` bool.
        recipe: Gives ``radius``, ``others`` and ``temperature``.

    Returns:
        Scalar, the mean over the patches of ``first`` with a patch of ``second`` in reach.
    """
    count, patches, _ = first.shape
    a, b = (F.normalize(x.flatten(0, 1), dim=-1) for x in (first, second))
    logits = (a @ b.T / recipe.temperature).view(count, patches, count, patches)
    near = distance <= 2 * recipe.radius
    # log weights of the candidates: (picture, patch, picture, patch)
    weight = torch.full((count, count), math.log(recipe.others / max(count - 1, 1)))
    weight = weight.fill_diagonal_(0.0)[:, None, :, None].repeat(1, patches, 1, patches)
    own = torch.arange(count)
    weight[own, :, own] = torch.where(alike & ~near, -math.inf, 0.0)
    log_p = F.log_softmax((logits + weight).flatten(2), dim=-1).view(logits.shape)[own, :, own]
    share = torch.exp(-0.5 * (distance / recipe.radius) ** 2) * near
    loss = -(log_p.masked_fill(~near, 0.0) * share).sum(-1) / share.sum(-1).clamp(min=1e-6)
    return loss[near.any(dim=-1)].mean()


def step_loss(
    model: VisionTransformer, pictures: NDArray[np.uint8], recipe: VFMRecipe, step: int
) -> Tensor:
    """Loss of one step; its pictures and views are a function of seed and step alone."""
    rng = np.random.default_rng([recipe.seed, step])
    chosen = np.sort(rng.choice(len(pictures), recipe.batch, replace=False))
    batch = torch.from_numpy(pictures[chosen]).permute(0, 3, 1, 2).float() / 255
    random = torch.Generator().manual_seed(int(rng.integers(2**62)))
    views, places = zip(*(random_view(batch, recipe.side, random) for _ in range(2)), strict=True)
    # bfloat16 products with plain attention, as in the pretraining of the tiny CLIP
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        features = model.forward_features(torch.cat(views)).float().chunk(2)
    patches = features[0].shape[1]
    keys = [torch.randperm(patches, generator=random)[: recipe.keys] for _ in range(2)]
    first, second = (f[:, k] for f, k in zip(features, keys, strict=True))
    here, there = (p[:, k] for p, k in zip(places, keys, strict=True))
    distance = torch.cdist(here, there)
    colours = [local_colours(batch, p) for p in (here, there)]
    alike = torch.cdist(colours[0], colours[1]) < recipe.alike
    forth = neighbour_loss(first, second, distance, alike, recipe)
    back = neighbour_loss(second, first, distance.mT, alike.mT, recipe)
    return (forth + back) / 2


def pretrain_vfm(
    pictures: NDArray[np.uint8], recipe: VFMRecipe, folder: Path, save_every: int = 50
) -> None:
    """Runs the recipe into ``folder/last.pt``, from where it also resumes.

    Raises ValueError when the checkpoint was made by another recipe, or a loss or gradient is not
    finite.
    """
    lock = lock_work_folder(folder)
    torch.manual_seed(recipe.seed)
    model = build_vfm()
    optimiser = adamw(model, recipe)
    start = resume_run(folder, model, optimiser, recipe)
    bar = tqdm(range(start, recipe.steps), "pretrain", recipe.steps, initial=start, disable=None)
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        loss = step_loss(model, pictures, recipe, step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clipped_step(model, optimiser, loss, step)
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            save_run(folder, model, optimiser, recipe, step + 1)
    del lock  # held until here
