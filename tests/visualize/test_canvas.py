"""Pixels are where boxes, dots and maps are."""
import cv2
import numpy as np
import pytest
from PIL import Image

from kd_det.errors import CompareError
from kd_det.visualize.canvas import GAP, LINE, Dot, Mark, Panel, grid, heat, marked, png, read

RED, GREEN, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 0)


def test_an_image_is_scaled_and_its_channels_are_rgb(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.full((100, 400, 3), (0, 0, 255), dtype=np.uint8))  # BGR: red
    image, scale = read(path, 200)
    assert image.size == (200, 50) and scale == 0.5 and image.getpixel((10, 10)) == RED
    assert read(path, 1000)[1] == 1  # never larger than the file
    with pytest.raises(CompareError, match='cannot be read'):
        read(str(tmp_path / 'b.png'), 100)


def test_boxes_and_dots_are_where_the_file_has_them():
    black = Image.new('RGB', (100, 100))
    drawn = marked(black, 0.5, [Mark((40, 60, 80, 100), '#ff0000')], [Dot((160, 40), '#00ff00', 4)])
    assert drawn.getpixel((20, 50)) == RED and drawn.getpixel((60, 80)) == RED and drawn.getpixel((40, 55)) == BLACK
    assert drawn.getpixel((80, 20)) == GREEN and black.getpixel((20, 50)) == BLACK
    dashed = np.asarray(marked(black, 1.0, [Mark((10, 10, 80, 80), '#ff0000', dashed=True)]))[10, 10:90, 0]
    assert 0.4 < (dashed == 255).mean() < 0.9
    # labels stay inside, also of boxes that begin outside; boxes without area are drawn
    marked(black, 1.0, [Mark((-20, -20, 30, 30), '#ff0000', 'a long label for it'),
                        Mark((99, 99, 0, 0), '#ff0000', 'x', True)])


def test_a_map_is_drawn_cell_by_cell():
    picture, low, high = heat(np.array([[0., 1.], [2., 4.]]), (40, 20))
    assert picture.size == (40, 20) and (low, high) == (0, 4)
    pixels = np.asarray(picture).astype(int)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 4
    assert pixels[0, 0].sum() < pixels[19, 39].sum()  # dark to yellow
    assert np.array_equal(pixels[0, 0], pixels[9, 19]) and not np.array_equal(pixels[0, 0], pixels[0, 20])
    heat(np.zeros((2, 2)), (4, 4))  # of equal values too


def test_panels_stand_side_by_side_with_wrapped_captions():
    panels = [Panel(Image.new('RGB', (60, 40), 'red'), 'a caption of several words'),
              Panel(Image.new('RGB', (60, 40)), '')]
    whole = grid([panels, panels[:1]], 'title')
    assert whole.width == 2 * 60 + 3 * GAP and len(panels[0].lines) > 1
    assert whole.height == LINE + GAP + 2 * (40 + LINE * len(panels[0].lines) + GAP)
    assert whole.getpixel((GAP + 1, GAP + LINE + 1)) == RED
    assert whole.getpixel((60 + 2 * GAP + 1, GAP + LINE + 1)) == BLACK
    assert png(whole)[:8] == b'\x89PNG\r\n\x1a\n'
