"""A sample is the images and boxes of the set, and a detector's boxes come back in the file's own pixels."""
import pytest
import torch
from tiny_runs import config, make_place

from kd_det.compare.sample import check_classes, detect, sample_of
from kd_det.compare.student import build_detector
from kd_det.errors import CompareError


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp('place'))


def test_images_and_ground_truth(place):
    sample = sample_of([config('nowhere/'), config(place[0])], 3)
    assert [photo.path.rsplit('/', 1)[1] for photo in sample.photos] == ['0.png', '2.png', '3.png'] or \
        [photo.path.rsplit('/', 1)[1] for photo in sample.photos] == ['0.png', '1.png', '3.png']
    assert sample.total == 4 and sample.classes == ['disc', 'square']
    for photo in sample.photos:
        thing, = sample.objects(photo)
        assert thing['bbox'] == [5, 5, 20, 20] and (photo.width, photo.height) == (64, 48)
        assert thing['category_id'] == int(photo.path[-5]) % 2
    assert len(sample_of([config(place[0])], 99).photos) == 4
    assert sample_of([config('nowhere/')], 3) is None


def test_named_images(place):
    sample = sample_of([config(place[0])], 3, named=['3.png', 'folder/1.png'])
    assert [photo.path[-5:] for photo in sample.photos] == ['3.png', '1.png']
    with pytest.raises(CompareError, match="no image 'x\\.png'"):
        sample_of([config(place[0])], 3, named=['x.png'])


def test_boxes_are_in_the_files_own_pixels(place):
    """A detector that sees each image at twice its size says the same box, in the same pixels."""
    cfg = config(place[0])
    sample = sample_of([cfg], 2)
    found = []
    for scale in ((64, 48), (128, 96)):
        cfg.test_dataloader.dataset.pipeline[1].scale = scale
        model = build_detector(cfg, place[1][8], 'x')

        def everywhere(data, scale=scale):  # the left half of what it sees
            sample, = data['data_samples']
            factor = sample.metainfo['scale_factor'][0]
            sample.pred_instances = type(sample.gt_instances)(
                bboxes=torch.tensor([[0., 0., scale[0] / 2, scale[1]], [1., 1., 2., 2.]]) / factor,
                scores=torch.tensor([0.4, 0.9]), labels=torch.tensor([1, 0]))
            return [sample]
        model.test_step = everywhere
        found.append(detect(model, cfg, sample.photos))
    assert found[0][1] == found[1][1] == dict(image_id=0, category_id=1, bbox=[0, 0, 32, 48], score=pytest.approx(0.4))
    assert [row['image_id'] for row in found[0]] == [0, 0, 1, 1] and found[0][0]['score'] == pytest.approx(0.9)


def test_other_classes_are_refused(place):
    check_classes('x', config(place[0]), ['disc', 'square'])
    with pytest.raises(CompareError, match='need the same classes'):
        check_classes('x', config(place[0]), ['square', 'disc'])
