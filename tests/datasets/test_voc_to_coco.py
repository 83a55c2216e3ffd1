"""VOC XML to COCO JSON: the pixel convention, difficult objects, and every bad input by name."""
import json
import os

import pytest

from kd_det.cli import voc as command
from kd_det.cli.command import call, guarded
from kd_det.datasets import voc_to_coco


def main(line):
    return guarded('voc', call, command, line)


def quiet(text):
    pass


def an_object(name, box, difficult=0):
    tags = ''.join(f'<{k}>{v}</{k}>' for k, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), box))
    return (f'<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{tags}</bndbox>'
            '<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>')


def add(voc, year, name, objects='', size=(50, 40), image=True, xml=None):
    folder = voc / f'VOC{year}'
    for part in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / 'Annotations' / f'{name}.xml').write_text(xml or (
        f'<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>'
        f'{objects}</annotation>'))
    if image:
        (folder / 'JPEGImages' / f'{name}.jpg').write_bytes(b'')
    with (folder / 'ImageSets' / 'Main' / 'trainval.txt').open('a') as file:
        file.write(f'{name}\n')


@pytest.fixture
def voc(tmp_path):
    """VOC2007 with a dog, a difficult cat and an image without objects; VOC2012 with a cat."""
    root = tmp_path / 'VOCdevkit'
    add(root, 2007, '000005', an_object('dog', (11, 21, 20, 40)) +
        an_object('cat', (1, 1, 50, 40), difficult=1))
    add(root, 2007, '000007')
    add(root, 2012, '2008_000001', an_object('cat', (1, 1, 1, 1)))
    return root


def convert(voc, sets=('2007:trainval',), **options):
    return voc_to_coco.convert(voc, list(sets), say=quiet, **options)


def test_inclusive_one_based_corners_become_zero_based_sizes(voc):
    coco = convert(voc, ['2007:trainval', '2012:trainval'])
    assert [a['bbox'] for a in coco['annotations']] == [
        [10, 20, 10, 20],  # columns 11..20 are ten, rows 21..40 twenty
        [0, 0, 50, 40],    # the whole image
        [0, 0, 1, 1]]      # one pixel is no empty box
    assert [a['area'] for a in coco['annotations']] == [200, 2000, 1]
    assert [(i['id'], i['file_name'], i['width'], i['height']) for i in coco['images']] == [
        (1, 'VOC2007/JPEGImages/000005.jpg', 50, 40), (2, 'VOC2007/JPEGImages/000007.jpg', 50, 40),
        (3, 'VOC2012/JPEGImages/2008_000001.jpg', 50, 40)]
    names = {c['id']: c['name'] for c in coco['categories']}
    assert [names[a['category_id']] for a in coco['annotations']] == ['dog', 'cat', 'cat']
    assert list(names.values()) == list(voc_to_coco.VOC_CLASSES) and len(names) == 20
    assert [a['image_id'] for a in coco['annotations']] == [1, 1, 3]


def test_the_twenty_classes_are_those_of_mmdetection():
    pytest.importorskip('kd_det')  # prepares the stack
    datasets = pytest.importorskip('mmdet.datasets')
    assert tuple(datasets.VOCDataset.METAINFO['classes']) == voc_to_coco.VOC_CLASSES


def test_a_detection_of_a_difficult_object_costs_nothing(voc, tmp_path, capsys):
    """AP stays 1 with two confident detections on the difficult cat; --keep-difficult counts."""
    coco_module = pytest.importorskip('pycocotools.coco')
    from pycocotools.cocoeval import COCOeval
    add(voc, 2007, '000009', an_object('cat', (5, 5, 20, 20)))
    scores = {}
    for keep in (False, True):
        path = tmp_path / f'{keep}.json'
        path.write_text(json.dumps(convert(voc, keep_difficult=keep)))
        coco = coco_module.COCO(str(path))
        found = [{'image_id': 1, 'category_id': 8, 'bbox': box, 'score': 0.9}  # 8: cat
                 for box in ([0, 0, 50, 40], [1, 1, 48, 38])]
        found.append({'image_id': 3, 'category_id': 8, 'bbox': [4, 4, 16, 16], 'score': 0.5})
        found.append({'image_id': 1, 'category_id': 12, 'bbox': [10, 20, 10, 20],  # dog
                      'score': 0.9})
        evaluation = COCOeval(coco, coco.loadRes(found), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        scores[keep] = evaluation.stats[0]
    assert scores[False] == pytest.approx(1)
    assert scores[True] < 0.95  # the second detection is a false one now


def test_a_box_beyond_its_image_is_clipped_and_said(voc):
    add(voc, 2007, '1', an_object('dog', (0, -3, 60, 10)))
    said = []
    coco = voc_to_coco.convert(voc, ['2007:trainval'], say=said.append)
    assert coco['annotations'][-1]['bbox'] == [0, 0, 50, 10]
    assert said == ['1 boxes reached beyond their image and were clipped']


def test_fractions_are_kept(voc):
    add(voc, 2007, '1', an_object('dog', ('1.5', '2', '10.25', '3')))
    assert convert(voc)['annotations'][-1]['bbox'] == [0.5, 1, 9.75, 2]


@pytest.mark.parametrize('box', [(30, 5, 20, 10), (5, 12, 9, 11), (60, 5, 70, 9), (-9, 1, 0, 5)])
def test_empty_inverted_and_outside_boxes_are_named_or_left_out(voc, box):
    add(voc, 2007, 'bad', an_object('dog', box) + an_object('dog', (2, 2, 3, 3)))
    with pytest.raises(ValueError, match=r'1 boxes are empty(.|\n)*bad\.xml.*dog(.|\n)*--skip-bad'):
        convert(voc)
    coco = convert(voc, skip_bad_boxes=True)
    assert [a['bbox'] for a in coco['annotations'] if a['image_id'] == 3] == [[1, 1, 2, 2]]


def test_unknown_classes_are_counted_and_named(voc):
    add(voc, 2007, '1', an_object('dragon', (2, 2, 3, 3)) * 2)
    with pytest.raises(ValueError, match=r"'dragon': 2 objects, the first in .*1\.xml"):
        convert(voc)
    said = []
    coco = voc_to_coco.convert(voc, ['2007:trainval'], skip_other_classes=True, say=said.append)
    assert len(coco['annotations']) == 2 and 'dragon' in said[0]
    coco = convert(voc, classes=['dragon', 'dog', 'cat'])
    assert [a['category_id'] for a in coco['annotations']] == [2, 3, 1, 1]
    with pytest.raises(ValueError, match='--classes'):
        convert(voc, classes=['dog', 'dog'])


def test_all_missing_files_are_listed_at_once(voc):
    add(voc, 2007, 'noimage', image=False)
    (voc / 'VOC2007' / 'Annotations' / '000005.xml').unlink()
    with pytest.raises(FileNotFoundError, match=r'2 files(.|\n)*000005\.xml(.|\n)*noimage\.jpg'):
        convert(voc)


@pytest.mark.parametrize('xml, named', [
    ('<annotation><size>', 'no valid XML'),
    ('<annotation></annotation>', '<size/width> is missing'),
    ('<annotation><size><width>0</width><height>4</height></size></annotation>', '0x4'),
    ('<annotation><size><width>9</width><height>4</height></size><object><name>dog</name>'
     '<bndbox><xmin>nan</xmin></bndbox></object></annotation>', r"<bndbox/xmin> is 'nan'"),
    ('<annotation><size><width>9</width><height>4</height></size><object><name>dog</name>'
     '</object></annotation>', '<bndbox/xmin> is missing')])
def test_broken_annotation_files_are_named(voc, xml, named):
    add(voc, 2007, 'broken', xml=xml)
    with pytest.raises(ValueError, match=rf'broken\.xml: .*{named}'):
        convert(voc)


@pytest.mark.parametrize('sets, named', [
    (['2007'], 'YEAR:SET'),
    (['2009:train'], r"VOC2009 is not there.*'VOC2007', 'VOC2012'"),
    (['2007:test'], r"test\.txt is not there; sets there: \['trainval'\]"),
    (['2007:trainval', '2007:trainval'], r'VOC2007/000005 is in 2007:trainval and again'),
    (['2007:dog_train'], 'more than one column'),
    (['2007:void'], 'names no image')])
def test_wrong_sets_are_named(voc, sets, named):
    main = voc / 'VOC2007' / 'ImageSets' / 'Main'
    (main / 'dog_train.txt').write_text('000005  1\n000007 -1\n')
    if sets == ['2007:void']:
        (main / 'void.txt').write_text('\n')
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        convert(voc, sets)


def test_a_missing_devkit_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such folder'):
        convert(tmp_path / 'nowhere')


def test_command_line_writes_all_or_nothing(voc, tmp_path, capsys, monkeypatch):
    out = tmp_path / 'made' / 'x.json'
    line = [str(voc), '--sets', '2007:trainval', '--out', str(out)]
    assert main(line) == 0
    assert '2 images, 2 objects (1 difficult, ignored)' in capsys.readouterr().out
    first = out.read_bytes()
    assert len(json.loads(first)['images']) == 2
    assert main(line) == 2  # not overwritten unasked
    assert '--force' in capsys.readouterr().err

    add(voc, 2007, '1', an_object('dragon', (2, 2, 3, 3)))
    assert main([*line, '--force']) == 2
    assert 'dragon' in capsys.readouterr().err and out.read_bytes() == first

    def stop(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', stop)
        with pytest.raises(KeyboardInterrupt):
            call(command, [*line, '--force', '--skip-other-classes'])
    assert out.read_bytes() == first and [p.name for p in out.parent.iterdir()] == ['x.json']
    assert main([*line, '--force', '--skip-other-classes']) == 0
    assert len(json.loads(out.read_text())['images']) == 3
