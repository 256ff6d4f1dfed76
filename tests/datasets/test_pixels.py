"""Images of any kind become upright pixels of 8 bits, or one sentence."""

import numpy as np
import pytest
from PIL import Image

from datasets import pixels
from datasets.splits import MissingData

RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def written(home, name, image, **how):
    path = home / name
    image.save(path, **how)
    return path


def grey(path, span=(0.0, 65535.0)):
    return np.asarray(pixels.eight_bit(pixels.opened(path), 1, span))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_what_a_camera_turned_is_turned_back(tmp_path, orientation, suffix):
    """Shown as every viewer shows it, with or without decoding: a bright corner ends where EXIF puts it."""
    ramp = np.zeros((8, 16), dtype=np.uint8)
    ramp[:4, :8] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path, f"a.{suffix}", Image.fromarray(ramp), exif=exif)
    mirrored, turns = {1: (0, 0), 2: (1, 0), 3: (0, 2), 4: (1, 2), 5: (1, 1), 6: (0, 3), 7: (1, 3), 8: (0, 1)}[
        orientation
    ]
    expected = np.rot90(ramp[:, ::-1] if mirrored else ramp, turns)
    found = np.asarray(pixels.opened(path))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() < 30  # JPEG is lossy
    assert pixels.opened(path, load=False).size == pixels.opened(path).size


def test_depths_become_eight_bits(tmp_path):
    assert (grey(written(tmp_path, "8.png", Image.fromarray(RAMP))) == RAMP).all()
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert (grey(written(tmp_path, "16.png", deep)) == RAMP).all()
    scanner = Image.fromarray((RAMP.astype(np.float64) / 255 * 4095).round().astype(np.uint16))
    assert np.abs(grey(written(tmp_path, "12.tif", scanner), (0, 4095)).astype(int) - RAMP).max() <= 1
    floating = RAMP.astype(np.float32) / 255
    floating[0, 0] = np.nan
    assert (grey(written(tmp_path, "f.tif", Image.fromarray(floating)), (0, 1)) == RAMP).all()
    bits = Image.fromarray(RAMP > 100)
    assert (grey(written(tmp_path, "1.png", bits)) == np.where(RAMP > 100, 255, 0)).all()


@pytest.mark.parametrize(
    ("low", "high", "whole", "span"),
    [
        (0, 4000, True, (0, 4095)), (3, 65535, True, (0, 65535)), (0, 200, True, (0, 255)), (-5, 90, True, (-5, 90)),
        (0.0, 0.9, False, (0, 1)), (0.0, 254.5, False, (0, 255)), (-1.0, 1.0, False, (-1, 1)),
        (0, 300.0, False, (0, 300)),
    ],
)  # fmt: skip
def test_the_range_of_deep_images_is_the_usual_one(low, high, whole, span):
    assert pixels.usual_span(low, high, whole) == span


def test_colours_and_transparency_become_what_is_seen(tmp_path):
    red = Image.new("RGB", (6, 4), (250, 10, 20))
    for name, image in {
        "p.png": red.convert("P", palette=Image.Palette.ADAPTIVE), "rgba.png": red.convert("RGBA"),
        "p.gif": red.convert("P", palette=Image.Palette.ADAPTIVE), "cmyk.tif": red.convert("CMYK"), "c.bmp": red,
    }.items():  # fmt: skip
        found = np.asarray(pixels.eight_bit(pixels.opened(written(tmp_path, name, image)), 3))
        assert np.abs(found.astype(int) - (250, 10, 20)).max() <= 3, name
    clear = Image.new("RGBA", (6, 4), (250, 10, 20, 0))
    assert (np.asarray(pixels.eight_bit(pixels.opened(written(tmp_path, "clear.png", clear)), 3)) == 255).all()
    half = Image.merge("LA", (Image.fromarray(RAMP), Image.new("L", (6, 4), 255)))
    assert (grey(written(tmp_path, "la.png", half)) == RAMP).all()


def test_of_several_frames_the_first_is_taken(tmp_path):
    frames = [Image.new("L", (6, 4), shade) for shade in (200, 10)]
    for name in ("a.gif", "a.tif", "a.webp"):
        path = written(tmp_path, name, frames[0], save_all=True, append_images=frames[1:])
        assert abs(int(grey(path).mean()) - 200) <= 2, name


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(MissingData, match=r"there is no file .*none\.png\."):
        pixels.opened(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(MissingData, match=r"text\.png cannot be read as an image \(its content is no image"):
        pixels.opened(tmp_path / "text.png")
    path = written(tmp_path, "large.png", Image.fromarray(RAMP))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(MissingData, match=r"large\.png has more than 179 million pixels; make it smaller\."):
        pixels.opened(path)


def test_files_of_systems_are_no_images(tmp_path):
    from pathlib import Path

    assert pixels.is_image(Path("cat/a.JPG"))
    for name in ("cat/._a.jpg", ".cache/a.png", "__MACOSX/cat/a.png", "a.txt", "Thumbs.db", ".DS_Store"):
        assert not pixels.is_image(Path(name)), name
