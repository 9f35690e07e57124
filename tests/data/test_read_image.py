"""One reader of pictures: what it refuses, and what it takes."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from bench.data.boxes import find_pictures
from bench.data.coco import inspect_image, read_image
from bench.errors import UserError
from tests.data.test_boxes import CASES, needs_cases

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    stream = BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def tagged(orientation: int) -> bytes:
    """A JPEG that asks to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded("JPEG", exif=exif)


KINDS: dict[str, bytes] = {
    "JPEG": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "grey": encoded("JPEG", "L"),
    "CMYK": encoded("JPEG", "CMYK"),
    "PNG": encoded("PNG"),
    "alpha": encoded("PNG", "RGBA"),
    "palette": encoded("PNG", "P"),
    "WebP": encoded("WEBP"),
    "BMP": encoded("BMP"),
    "GIF": encoded("GIF"),
    "TIFF": encoded("TIFF"),
}
"""Pictures of 8 bits, whatever their name ends in."""

READERS: dict[str, Callable[[Path], object]] = {
    "read_image": read_image,
    "inspect_image": inspect_image,
    "show": find_pictures,
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_8_bits_are_read(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(KINDS[kind])
    assert read_image(file).shape == (40, 60, 3)
    assert inspect_image(file) == ((60, 40), (60, 40), False)


def test_pixels_are_those_that_were_written(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(KINDS["PNG"])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PIXELS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("reader", READERS)
def test_a_cut_picture_is_refused(kind: str, share: float, reader: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(KINDS[kind][: int(share * len(KINDS[kind]))])
    with pytest.raises(UserError, match=r"a\.jpg: cannot be read as an image, wanted a whole JPEG"):
        READERS[reader](file)


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "grey"])
def test_a_jpeg_whose_end_is_zeros_is_refused(kind: str, tmp_path: Path) -> None:
    """As a download leaves it that has reserved its space; the end of a preview in the head does not count."""
    content = KINDS[kind]
    preview = b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    half = content[:2] + preview + content[2 : len(content) // 2]
    file = tmp_path / "a.jpg"
    file.write_bytes(half + bytes(len(content) // 2))
    with pytest.raises(UserError, match=r"wanted a whole JPEG file: its end is missing$"):
        read_image(file)


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 3), (40, 60, 4)])
@pytest.mark.parametrize("reader", READERS)
def test_more_than_8_bits_are_refused(shape: tuple[int, ...], reader: str, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    assert cv2.imwrite(str(file), np.full(shape, 4000, dtype=np.uint16))
    with pytest.raises(
        UserError, match=r"a\.png: found 16 bits for each channel, wanted 8: scale its values to 0 to 255"
    ):
        READERS[reader](file)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tag_is_seen_and_not_followed(orientation: int, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(tagged(orientation))
    stored = inspect_image(file)
    assert stored.size == (60, 40)
    assert stored.shown_size == ((40, 60) if orientation > 4 else (60, 40))
    assert stored.turned == (orientation > 1)
    assert stored.size_fault((60, 40)) is None
    hint = "its EXIF tag is followed" in str(stored.size_fault((40, 60)))
    assert hint == (orientation > 4)


@needs_cases
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("cut/cut.jpg", "cannot be read as an image, wanted a whole JPEG"),
        ("gray12in16/gray12in16.png", "found 16 bits for"),
    ],
)
def test_the_shared_pictures(file: str, message: str, reader: str) -> None:
    with pytest.raises(UserError, match=message):
        READERS[reader](CASES / "pictures" / file)
