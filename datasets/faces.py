"""Faces in pictures, found by OpenCV and cut out."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from harness.media import Picture

SIDE = 640  # pixels of the square in which a whole picture is searched
SMALLEST = SIDE // 16  # pixels of a face there
MARGIN = 0.25  # beside a face on each side, of its side


def crop_face(picture: "Picture", size: int) -> "Picture | None":
    """The largest face of a picture (S, S, 3) with a margin, (size, size, 3); None where there is none.

    Frontal faces are found by Haar cascades (Viola, Jones 2001, "Rapid object detection using a boosted cascade of
    simple features").

    Raises:
        ValueError: OpenCV is not there, or has no cascades.
    """
    cv2, cascade = _opencv()
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    found = cascade.detectMultiScale(gray, scaleFactor=1.1, minNeighbors=5, minSize=(SMALLEST, SMALLEST))
    if not len(found):
        return None
    x, y, side, _ = max(map(tuple, found), key=lambda face: (face[2], face))
    margin = round(MARGIN * side)
    face = picture[max(0, y - margin) : y + side + margin, max(0, x - margin) : x + side + margin]
    return np.asarray(cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


@cache
def _opencv() -> tuple[Any, Any]:
    """The module, and its classifier of frontal faces. OpenCV 5 comes without."""
    try:
        cv2 = import_module("cv2")
        return cv2, cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_default.xml")
    except (ImportError, AttributeError) as error:
        raise ValueError("source.crop=face needs OpenCV 4: pip install 'sidequest[faces]'") from error
