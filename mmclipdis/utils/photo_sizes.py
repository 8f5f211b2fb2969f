"""Does the size of a photo, as it was loaded, agree with what its annotation says?

Loaders turn a photo as its EXIF tag says (OpenCV and mmcv with ``color_type='color'``), and boxes
or label maps may be those of the photo as it lies in the file.
"""

from __future__ import annotations

from PIL import Image

from mmclipdis.utils.pictures import open_picture

#: The tag ``Orientation``; 1 is upright.
ORIENTATION = 0x0112


def size_problem(
    photo: str, loaded: tuple[int, int], annotated: tuple[int, int], annotation: str
) -> str:
    """What is wrong where a photo and its annotation have different sizes; ``''`` if they agree.

    Args:
        photo: Its file.
        loaded: (height, width) as it was loaded.
        annotated: (height, width) in the annotation.
        annotation: What says so, for the message: ``"its label map a.png"``.
    """
    if tuple(loaded) == tuple(annotated):
        return ""
    text = (
        f"{photo} has {loaded[1]} x {loaded[0]} pixels as it is loaded (width x height), but "
        f"{annotation} has {annotated[1]} x {annotated[0]}"
    )
    turn = orientation(photo)
    if turn > 4 and tuple(loaded) == tuple(annotated)[::-1]:
        return (
            f"{text}: its EXIF tag turns the photo (orientation {turn}), and the annotation is of "
            "the unturned one; load it with color_type='color_ignore_orientation', or write the "
            "photo again turned and without the tag"
        )
    return f"{text}; the two are not of the same picture, or one was resized: replace either"


def orientation(photo: str) -> int:
    """EXIF orientation of a file, 1 to 8; 1 where there is none or the file cannot be read."""
    try:
        with open_picture(photo, limit=2**62) as picture:
            return orientation_of(picture)
    except (OSError, ValueError):
        return 1


def orientation_of(picture: Image.Image) -> int:
    """EXIF orientation of an opened picture, 1 to 8."""
    turn = picture.getexif().get(ORIENTATION, 1)
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1
