"""The positives in the pictures are those that the heads decide on, object by object, in the file's own pixels."""
import pytest
import torch
from conftest import faster_rcnn_cfg
from dense_detectors import dense_cfg
from mmengine.logging import MessageHub
from scenes import photo, taught

from kd_det.errors import CompareError
from kd_det.heads.dense_outputs import training_format
from kd_det.heads.dense_targets import reader_of, targets_of
from kd_det.tap import tap_method
from kd_det.visualize import positives

KINDS = ('paa', 'tood', 'rtmdet', 'yolox', 'ddod')


@pytest.fixture(autouse=True)
def epoch():
    """TOOD asks for the epoch; in its first it assigns statically, a trained one never."""
    MessageHub.get_current_instance().update_info('epoch', 0)


@pytest.mark.parametrize('kind', KINDS)
def test_positives_are_the_heads_own(kind, tmp_path):
    found = taught(dense_cfg(kind), dense_cfg(kind, width=16), tmp_path)
    sample, one = photo(tmp_path)
    inputs, samples = positives.inputs_of(found, sample, one)
    truths = samples[0].gt_instances
    # twice the size: the network sees the objects at half of it
    x, y, w, h = sample.objects(one)[0]['bbox']
    assert (truths.bboxes[0] * 2).tolist() == [x, y, x + w, y + h]
    decided = positives.positives_of(found, inputs, samples)
    assert list(decided) == ['student', 'teacher']
    for name, network in (('student', found.model), ('teacher', found.model.sources['teacher'].model)):
        head = network.bbox_head
        result = decided[name]
        heard = independently(head, network, inputs, samples)
        assert sorted(heard) == sorted(p for places in result.chosen for p in places.tolist()), name
        assert len(result.chosen) == 3 and heard
        assert len(result.centres) == len(result.sides) == count_of_priors(head, inputs)
        # a positive prior lies near its object: its centre inside, or its anchor over it (PAA's IoU is at least 0.1)
        for box, places in zip(truths.bboxes, result.chosen):
            x, y = result.centres[places].unbind(1)
            room = result.sides[places] / 2 + (8 if kind == 'yolox' else 0)
            assert bool((x + room >= box[0]).all() and (x - room <= box[2]).all() and (y + room >= box[1]).all()), name
    if kind == 'paa':
        mine, theirs = ([places.tolist() for places in decided[name].chosen] for name in ('student', 'teacher'))
        assert mine != theirs
    image = positives.picture(found, sample, one, 200)
    assert image.width > 3 * 200


def independently(head, network, inputs, samples):
    """Positive priors as the head's own loss counts them: what its targets say, or who is in its box loss."""
    reader, noted, keep = reader_of(head, 'x'), {}, getattr(head, 'initial_epoch', 0)
    head.initial_epoch = 0
    with torch.no_grad(), training_format(head):
        features = network.extract_feat(inputs)
        taps = []
        for branch, (owner, method) in reader.taps(head).items():
            noted[branch] = []
            tap = tap_method(owner, method, lambda result, arguments, notes=noted[branch]: notes.append(
                reader.note(result, arguments)))
            tap.__enter__()
            taps.append(tap)
        outputs = head(features)
        head.loss_by_feat(*outputs, [samples[0].gt_instances], [samples[0].metainfo], [samples[0].ignored_instances])
        for tap in taps:
            tap.__exit__(None, None, None)
    head.initial_epoch = keep
    anchors = head.prior_generator.num_base_priors[0]
    sizes = [level.shape[-2] * level.shape[-1] * anchors for level in outputs[0]]
    return targets_of(head, noted, 1, sizes).positive[0].nonzero().flatten().tolist()


def count_of_priors(head, inputs):
    strides = [stride[0] if isinstance(stride, (tuple, list)) else stride for stride in head.prior_generator.strides]
    anchors = head.prior_generator.num_base_priors[0]
    return sum(-(-inputs.shape[-2] // stride) * -(-inputs.shape[-1] // stride) for stride in strides) * anchors


def test_the_difference_is_counted_by_object():
    student = positives.Positives(torch.zeros(9, 2), torch.ones(9), [torch.tensor([1, 2, 3]), torch.tensor([5])])
    other = positives.Positives(torch.zeros(9, 2), torch.ones(9), [torch.tensor([2, 4]), torch.tensor([5])])
    found, lines = positives._difference(student, other, ['disc', 'square'])
    assert lines == ['1 disc: 2 / 1 / 1', '2 square: 0 / 0 / 1']
    assert found[positives.ALONE].tolist() == [1, 3] and found[positives.OTHER].tolist() == [4]
    assert found[positives.BOTH].tolist() == [2, 5]


def test_an_image_without_objects_has_no_picture(tmp_path):
    found = taught(dense_cfg('yolox'), dense_cfg('yolox', width=16), tmp_path)
    sample, one = photo(tmp_path, objects=0)
    assert positives.picture(found, sample, one, 100) is None


@pytest.mark.parametrize('cfg, words', [(lambda width: faster_rcnn_cfg(width=width), 'no dense head'),
                                        (lambda width: dense_cfg('retinanet', width=width), 'assign alike')])
def test_heads_that_assign_by_geometry_are_said_to(cfg, words, tmp_path):
    with pytest.raises(CompareError, match=words):
        positives.check_decides(taught(cfg(8), cfg(16), tmp_path))
