"""A file against its model: the same images through both."""

from __future__ import annotations

from torch import Tensor

from mmclipdis.export.capture import example_size, noise
from mmclipdis.export.files import FORMATS, Run
from mmclipdis.export.kinds import Exportable, Size

#: Largest difference of an output, where its values are below 1, or else relative to the largest.
TOLERANCE = 1e-4
#: Patches along the sides of the images of two sizes.
_SIZES = ((6, 6), (3, 8))
#: Images tried until rounding cannot change what the model itself chooses of them.
_TRIES = 20


def check_file(run: Run, found: Exportable, size: Size | None, format: str) -> None:
    """Compare what the file gives with what the model's own code gives, and print it.

    One image, and two, if the batch is open; of two sizes, if the size is open.

    Raises:
        RuntimeError: they differ, or the file does not run; nothing is written.
    """
    sizes = [size] if size is not None else [example_size(found.step, one) for one in _SIZES]
    for seed, one in enumerate(sizes):
        for batch in (1, 2) if found.batch else (1,):
            images = _images(batch, one, found, seed)
            wanted = found.reference(images)
            worst = 0.0
            try:
                given = run(images)
            except Exception as error:  # of whatever runs the file
                reason = " ".join(str(error).split())[:200]
                other = "" if format == "torch" else ", or use format='torch' (--format torch)"
                raise RuntimeError(
                    f"the file does not run on {batch} x 3 x {one[0]} x {one[1]}: "
                    f"{type(error).__name__}: {reason}; fix the size of images (--image-size)"
                    f"{other}; nothing was written"
                ) from error
            for name, mine, theirs in zip(found.outputs, given, wanted, strict=True):
                theirs = theirs.to(mine.device)
                what = f"{name} of {batch} x 3 x {one[0]} x {one[1]}"
                if mine.shape != theirs.shape:
                    raise RuntimeError(
                        f"the file is not the model: {what} are {tuple(mine.shape)}, the model's "
                        f"{tuple(theirs.shape)}; nothing was written"
                    )
                difference = float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=1))
                if not difference <= TOLERANCE:
                    raise RuntimeError(
                        f"the file is not the model: {what} differ by {difference:.1e}, more than "
                        f"{TOLERANCE:.0e}; nothing was written"
                    )
                worst = max(worst, difference)
            print(
                f"checked by {FORMATS[format].runner}: {batch} x 3 x {one[0]} x {one[1]}, largest "
                f"difference {worst:.1e}"
            )


def _images(batch: int, size: Size, found: Exportable, seed: int) -> Tensor:
    """Noise in which nothing is chosen by a hair, which would compare two libraries' rounding."""
    for attempt in range(_TRIES):
        images = noise(batch, size, found, seed=seed + 1 + 10 * attempt)
        if found.settled(images):
            break
    return images
