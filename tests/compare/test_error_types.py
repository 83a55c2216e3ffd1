"""TIDE's error types on cases made by hand, and what fixing each of them gives."""
import numpy as np
import pytest
from coco_scenes import coco, random_scene

from kd_det.compare.error_types import CORRECT, IGNORED, TYPES, find_errors
from kd_det.compare.matching import match, precisions

CAT, DOG = 1, 2


def detection(box, score, kind=CAT, image=0):
    return dict(image_id=image, category_id=kind, bbox=list(box), score=score)


# IoU with the object (0, 0, 100, 100): 1, 2/3, 1/3, 1/19
EXACT, GOOD, POOR, FAR = (0, 0, 100, 100), (20, 0, 100, 100), (50, 0, 100, 100), (90, 0, 100, 100)


@pytest.mark.parametrize('box, kind, expected', [
    (GOOD, CAT, CORRECT), (POOR, CAT, 'localisation'), (GOOD, DOG, 'classification'), (POOR, DOG, 'both'),
    (FAR, CAT, 'background'), (FAR, DOG, 'background')])
def test_one_object_and_one_detection(box, kind, expected):
    truth = coco([0], ['cat', 'dog'], [(0, CAT, EXACT, False)])
    errors = find_errors(truth, [detection(box, 0.9, kind)])
    assert errors.types == [expected]
    assert errors.undetected == (set() if expected == CORRECT else {1})
    # an object that a fixable detection points to is not missed
    assert errors.missed == ({1} if expected in ('both', 'background') else set())
    assert errors.targets == [1 if expected in (CORRECT, 'localisation', 'classification') else None]
    assert errors.ap50 == (100 if expected == CORRECT else 0)
    fixed = {kind: cost for kind, cost in errors.costs.items() if cost}
    if expected in ('localisation', 'classification'):
        assert fixed == {expected: pytest.approx(100)}
    elif expected != CORRECT:
        assert fixed == {}  # a class of which nothing is detected keeps its 0


def test_a_second_detection_of_an_object_is_a_duplicate_and_costs_what_stands_below_it():
    truth = coco([0, 1], ['cat'], [(0, CAT, EXACT, False), (1, CAT, EXACT, False)])
    errors = find_errors(truth, [detection(GOOD, 0.8), detection(EXACT, 0.9), detection(EXACT, 0.7, image=1)])
    assert errors.types == ['duplicate', CORRECT, CORRECT] and errors.targets == [1, 1, 2]
    # hit, miss, hit: precision 1 up to recall 0.5 (51 of 101 levels), then 2/3
    assert errors.ap50 == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert errors.costs['duplicate'] == pytest.approx(100 - errors.ap50)
    assert errors.counts() == {**dict.fromkeys(TYPES, 0), 'duplicate': 1}


def test_missed_objects_are_priced_by_not_counting_them():
    truth = coco([0, 1], ['cat'], [(0, CAT, EXACT, False), (1, CAT, EXACT, False)])
    errors = find_errors(truth, [detection(EXACT, 0.9)])
    assert errors.missed == errors.undetected == {2}
    assert errors.costs['missed'] == pytest.approx(100 - 100 * 51 / 101)


def test_a_moved_detection_competes_for_its_object_by_score():
    """Two poor boxes on one object: the better one becomes the hit, the other goes; also where the object has a hit."""
    truth = coco([0], ['cat'], [(0, CAT, EXACT, False)])
    two = find_errors(truth, [detection(POOR, 0.5), detection(POOR, 0.9)])
    assert two.types == ['localisation', 'localisation'] and two.costs['localisation'] == pytest.approx(100)
    above = find_errors(truth, [detection(POOR, 0.9), detection(EXACT, 0.5)])
    assert above.types == ['localisation', CORRECT]
    assert above.ap50 == pytest.approx(50) and above.costs['localisation'] == pytest.approx(50)


def test_a_renamed_detection_counts_for_the_class_of_its_object():
    truth = coco([0, 1], ['cat', 'dog'], [(0, CAT, EXACT, False), (1, DOG, EXACT, False)])
    errors = find_errors(truth, [detection(EXACT, 0.9, DOG), detection(EXACT, 0.8, DOG, image=1)])
    assert errors.types == ['classification', CORRECT]
    # cats: nothing found; dogs: a miss above the hit, precision 1/2
    assert errors.ap50 == pytest.approx(25) and errors.costs['classification'] == pytest.approx(75)


def test_the_first_type_that_holds_decides():
    """A poor box on a cat that sits well on a dog: localisation; on a found cat and a dog: classification."""
    both = coco([0], ['cat', 'dog'], [(0, CAT, EXACT, False), (0, DOG, POOR, False)])
    assert find_errors(both, [detection(POOR, 0.9, CAT)]).types == ['localisation']
    found = coco([0], ['cat', 'dog'], [(0, CAT, EXACT, False), (0, DOG, EXACT, False)])
    assert find_errors(found, [detection(EXACT, 0.9), detection(EXACT, 0.8)]).types == [CORRECT, 'classification']


def test_crowds_and_what_is_beyond_the_best_hundred_count_neither_way():
    truth = coco([0], ['cat'], [(0, CAT, EXACT, True), (0, CAT, (200, 0, 50, 50), False)])
    boxes = [detection(EXACT, 0.9)] + [detection((150, 150, 20, 20), 0.8 - i / 1000) for i in range(100)]
    errors = find_errors(truth, boxes)
    assert errors.types == [IGNORED] + ['background'] * 99 + [IGNORED]
    assert errors.undetected == {2}


@pytest.mark.parametrize('seed', range(4))
def test_a_scene_hits_are_pycocotools_and_fixing_never_costs(seed):
    truth, one, _ = random_scene(images=40, seed=seed)
    errors = find_errors(truth, one)
    assert errors.ap50 == pytest.approx(100 * np.nanmean(precisions(match(truth, one))[0, :, 0, 0]), abs=1e-9)
    assert all(cost >= -1e-9 for cost in errors.costs.values()) and all(errors.counts().values())
    objects = sum(not a['iscrowd'] for a in truth.dataset['annotations'])
    assert errors.types.count(CORRECT) == objects - len(errors.undetected)
    assert errors.missed < errors.undetected
    for kind in ('both', 'duplicate', 'background'):
        without = [d for d, t in zip(one, errors.types) if t != kind]
        assert errors.costs[kind] == pytest.approx(find_errors(truth, without).ap50 - errors.ap50)
    # nothing wrong and nothing missed left: AP50 100
    right = [d for d, t in zip(one, errors.types) if t == CORRECT]
    assert errors.ap50 + errors.costs['false positives'] == pytest.approx(find_errors(truth, right).ap50)


def test_nothing_detected():
    truth, _, _ = random_scene()
    errors = find_errors(truth, [])
    assert errors.ap50 == 0 and errors.missed == errors.undetected and errors.missed
