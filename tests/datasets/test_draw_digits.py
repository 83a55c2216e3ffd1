"""The pictures of the digits set: boxes around what is seen, no leak between tiles, variety."""
import numpy as np
import pytest

pytest.importorskip('cv2')
pytest.importorskip('PIL')
pytest.importorskip('sklearn.datasets')

from kd_det.datasets import draw_digits, make_digits


@pytest.fixture(scope='module')
def sources():
    return make_digits.load_sources()


@pytest.mark.parametrize('split', ['train', 'dev', 'val'])
def test_backgrounds_depend_on_the_tiles_of_their_split_alone(sources, split):
    photos = sources[2]
    tiles = make_digits.split_tiles(photos)[split]
    blacked = [np.zeros_like(photo) for photo in photos]
    for number, (x, y, w, h) in tiles:
        blacked[number][y:y + h, x:x + w] = photos[number][y:y + h, x:x + w]
    for k, (number, box) in enumerate(tiles):
        one, two = (draw_digits.background(np.random.default_rng(k), source[number], box, (96, 72))
                    for source in (photos, blacked))
        assert one.shape == (72, 96, 3) and one.std() > 0
        np.testing.assert_array_equal(one, two)


def test_box_of_an_owner_map_by_hand():
    picture = draw_digits.Picture(np.zeros((5, 7, 3), np.float32))
    picture.owner[1, 2:5] = 0
    picture.owner[3, 2] = 0
    picture.owner[4, 6] = 1
    assert picture.box(0) == [2, 1, 3, 3]
    assert picture.box(1) == [6, 4, 1, 1]


def test_box_is_tight_around_the_pixels_that_changed(sources):
    images = sources[0]
    checked = 0
    for k in range(60):
        rng = np.random.default_rng([7, k])
        picture = draw_digits.Picture(np.full((120, 160, 3), 128, np.float32))
        opacity = draw_digits.render(rng, images[k], rng.uniform(12, 60))
        if not picture.paste(rng, opacity, digit=(0, k)):
            continue
        change = np.abs(picture.canvas - 128).max(2)  # (H, W), proportional to opacity
        x, y, w, h = picture.box(0)
        if min(x, y, 160 - x - w, 120 - y - h) < 2:
            continue  # cut by the edge: the strongest ink may be outside
        rows, columns = np.nonzero(change >= 0.5 * change.max())
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.subtract(seen, [x, y, x + w, y + h])).max() <= 1
        checked += 1
    assert checked > 20


def test_every_digit_stays_visible_and_pictures_vary(sources):
    images, targets, photos = sources
    pool = make_digits.split_samples(targets, 0)['train']
    number, tile = make_digits.split_tiles(photos)['train'][0]
    heights, counts, hidden, signs = [], [], 0, set()
    for k in range(50):
        rng = np.random.default_rng([5, k])
        canvas = draw_digits.background(rng, photos[number], tile, (320, 240))
        before = canvas.copy()
        picture = draw_digits.draw(rng, canvas, images, pool)
        counts.append(len(picture.digits))
        for thing in picture.digits:
            mask = picture.owner == thing
            # counted against the whole ink, also the part beyond the edge
            assert mask.sum() >= draw_digits.LEAST_VISIBLE * picture.ink[thing]
            hidden += mask.sum() < picture.ink[thing]
            heights.append(picture.box(thing)[3])
            signs.add(bool((picture.canvas - before)[mask].mean() > 0))
    assert 0 in counts and max(counts) >= 7
    assert min(heights) < 30 and max(heights) > 90
    assert hidden > 20  # overlap and edges do occur
    assert signs == {True, False}  # brighter and darker than what is under them


def test_a_digit_that_a_later_one_would_hide_is_protected(sources):
    picture = draw_digits.Picture(np.full((40, 40, 3), 90, np.float32))
    blob = np.zeros((20, 20), np.float32)
    blob[5:15, 5:15] = 1
    rng = np.random.default_rng(0)
    while not picture.paste(rng, blob, digit=(1, 0)):
        pass
    cover = np.ones((38, 38), np.float32)
    results = [picture.paste(rng, cover) for _ in range(40)]
    assert (picture.owner == 0).sum() >= 0.7 * 100
    assert results.count(False) > 10
