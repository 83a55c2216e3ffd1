"""AP of drawn images: equal to pycocotools on the data set with images repeated; intervals of differences."""
import contextlib
import io

import numpy as np
import pytest
from coco_scenes import coco, random_scene
from pycocotools.cocoeval import COCOeval

from kd_det.compare.bootstrap import draw_images, paired_bootstrap
from kd_det.compare.matching import AREAS, figures, match, precisions
from kd_det.errors import CompareError


def reference(truth, detections):
    """pycocotools' own precision, averaged over recall: (K, A, T), NaN for absent classes."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCOeval(truth, truth.loadRes([dict(d) for d in detections]), 'bbox')
        found.evaluate()
        found.accumulate()
    precision = found.eval['precision'][..., -1]  # (T, R, K, A) at 100 detections an image
    return np.where(precision > -1, precision, np.nan).mean(axis=1).transpose(1, 2, 0)


def repeated(truth, detections, counts):
    """The data set that holds image i ``counts[i]`` times, copies side by side."""
    copies = {i: [1000 * i + c for c in range(n)] for i, n in zip(sorted(truth.imgs), counts)}
    notes = [(new, a['category_id'], a['bbox'], a['iscrowd']) for a in truth.dataset['annotations']
             for new in copies[a['image_id']]]
    names = [category['name'] for category in truth.dataset['categories']]
    return (coco([new for news in copies.values() for new in news], names, notes),
            [dict(d, image_id=new) for d in detections for new in copies[d['image_id']]])


@pytest.mark.parametrize('seed', range(4))
def test_the_evaluation_set_itself_gives_what_pycocotools_gives(seed):
    truth, one, _ = random_scene(seed=seed)
    expected = reference(truth, one)
    assert 0.02 < np.nanmean(expected) < 0.98
    np.testing.assert_allclose(precisions(match(truth, one))[0], expected, atol=1e-9)


@pytest.mark.parametrize('seed', range(4))
def test_a_draw_equals_pycocotools_on_the_data_set_with_images_repeated(seed):
    truth, one, _ = random_scene(seed=seed)
    draws = draw_images(len(truth.imgs), 6, seed=seed)
    draws[0, 5] = 0  # the only image with an object of class 'eel'
    assert (draws > 1).any()
    found = precisions(match(truth, one), draws)
    assert np.isnan(found[0, 2]).all()
    for counts, values in zip(draws, found):
        np.testing.assert_allclose(values, reference(*repeated(truth, one, counts)), atol=1e-9)


def test_the_columns_are_means_over_the_classes_that_are_there():
    truth, one, _ = random_scene()
    matches = match(truth, one)
    found = figures(precisions(matches), matches.classes)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes([dict(d) for d in one]), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    for name, stat in zip(('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl'), evaluation.stats):
        assert found[name][0] == pytest.approx(100 * stat, abs=1e-7), name
    expected = reference(truth, one)[:, 0].mean(axis=1)
    for k, name in enumerate(('cat', 'dog', 'eel')):
        assert found[f'class/{name}'][0] == pytest.approx(100 * expected[k], abs=1e-7)


def test_only_named_classes_count_and_unknown_ones_are_refused():
    truth, one, _ = random_scene()
    matches = match(truth, one, ['dog'])
    assert matches.classes == ['dog']
    np.testing.assert_array_equal(precisions(matches)[:, 0], precisions(match(truth, one))[:, 1])
    with pytest.raises(CompareError, match="no classes \\['fox'\\]"):
        match(truth, one, ['dog', 'fox'])
    with pytest.raises(CompareError, match='image_id 77'):
        match(truth, [dict(one[0], image_id=77)])


def test_no_detections_are_no_precision():
    truth, _, _ = random_scene()
    found = precisions(match(truth, []))
    assert np.nanmax(found) == 0 and found.shape == (1, 3, len(AREAS), 10)


def test_a_detector_differs_from_itself_by_nothing_and_the_order_of_the_pair_is_a_sign():
    truth, one, other = random_scene(images=20)
    a, b = match(truth, one), match(truth, other)
    for difference in paired_bootstrap([a], [a], draws=50).values():
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    forth, back = paired_bootstrap([a], [b], draws=50)['AP'], paired_bootstrap([b], [a], draws=50)['AP']
    assert forth.value == pytest.approx(-back.value) and forth.low == pytest.approx(-back.high)
    expected = figures(precisions(a), a.classes)['AP'] - figures(precisions(b), b.classes)['AP']
    assert forth.value == pytest.approx(expected[0]) and forth.low < forth.value < forth.high


def test_several_seeds_are_averaged_within_each_draw():
    truth, one, other = random_scene(images=20)
    a, b = match(truth, one), match(truth, other)
    both = paired_bootstrap([a, b], [b, b], draws=50)['AP']
    alone = paired_bootstrap([a], [b], draws=50)['AP']
    assert both.value == pytest.approx(alone.value / 2) and both.high == pytest.approx(alone.high / 2)
    with pytest.raises(CompareError, match='2 and 1'):
        paired_bootstrap([a, b], [a])


def test_the_interval_has_the_spread_of_a_mean_where_that_is_known():
    """Images with one object each, found or not, nothing else: AP50 is the share found, up to the grid of recalls.

    The difference of two detectors is then the mean of n values in {-1, 0, 1}, whose standard error is known.
    """
    n = 400
    rng = np.random.default_rng(0)
    truth = coco(range(n), ['thing'], [(i, 1, (10, 10, 40, 40), False) for i in range(n)])
    hits = rng.random((2, n)) < [[0.6], [0.5]]
    sides = [match(truth, [dict(image_id=i, category_id=1, bbox=[10, 10, 40, 40], score=1 - i / n)
                           for i in range(n) if found[i]]) for found in hits]
    difference = paired_bootstrap([sides[0]], [sides[1]])['AP50']
    each = hits[0].astype(float) - hits[1]
    assert difference.value == pytest.approx(100 * each.mean(), abs=1)  # 101 recall levels
    half = 100 * 1.96 * each.std() / n**0.5
    assert (difference.high - difference.low) / 2 == pytest.approx(half, rel=0.08)


def test_two_data_sets_are_no_pair():
    truth, one, _ = random_scene()
    fewer, same, _ = random_scene(images=6)
    with pytest.raises(CompareError, match='same images'):
        paired_bootstrap([match(truth, one)], [match(fewer, same)])
