"""The three formats give one data set; what is wrong is said with the file and what would do; nothing is lost."""
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_folders import CLASSES, SIZE, coco, scene, voc, write_image, xml, yolo
from PIL import Image

from kd_det.cli import prepare as command
from kd_det.cli.command import call
from kd_det.errors import ConfigError, DataError
from kd_det.mydata.as_coco import coco_of
from kd_det.mydata.found import Found, Part, Picture, Thing
from kd_det.mydata.parts import assign, word_of
from kd_det.mydata.prepare import prepare, write
from kd_det.mydata.splitting import split

MAKERS = dict(coco=coco, voc=voc, yolo=yolo)
TRUE = {Path(name).stem: sorted((CLASSES[label], *box) for label, *box in things) for name, _, things in scene()}


def content(prepared):
    """Stem of each image -> its objects, of all parts."""
    found = {}
    for part in prepared.parts.values():
        made = coco_of(part, prepared.classes)
        names = {image['id']: Path(image['file_name']).stem.removeprefix('train_') for image in made['images']}
        found.update({name: [] for name in names.values()})
        for note in made['annotations']:
            label = made['categories'][note['category_id'] - 1]['name']
            found[names[note['image_id']]].append((label, *(round(v) for v in note['bbox'])))
    return {name: sorted(things) for name, things in found.items()}


@pytest.mark.parametrize('kind', MAKERS)
def test_the_same_objects_in_every_format(kind, tmp_path):
    prepared = prepare(str(MAKERS[kind](tmp_path)))
    assert prepared.format == kind and prepared.classes == list(CLASSES)
    assert content(prepared) == TRUE and {'train', 'val'} == set(prepared.parts)
    assert any('split:' in remark and 'seed 0' in remark for remark in prepared.remarks)
    made = coco_of(prepared.parts['train'], prepared.classes)
    assert all((tmp_path / image['file_name']).is_file() for image in made['images'])
    assert {(image['width'], image['height']) for image in made['images']} == {SIZE}


@pytest.mark.parametrize('kind, parts', [
    ('coco', (('instances_train2017.json', 6), ('instances_val2017.json', 4))),
    ('voc', (('train', 6), ('valid', 4), ('test', 3))),
    ('yolo', (('train', 6), ('test', 4)))])
def test_parts_by_their_names(kind, parts, tmp_path):
    prepared = prepare(str(MAKERS[kind](tmp_path, parts)))
    assert [len(part.pictures) for part in prepared.parts.values()] == [count for _, count in parts]
    assert not any('split' in remark for remark in prepared.remarks)


def test_words():
    assert assign(['train', 'eval', 'dev', None]) == ({'train': 'train', 'val': 'eval'}, ['dev'])
    assert assign(['trainval', 'test']) == ({'train': 'trainval', 'val': 'test'}, [])
    assert assign(['train', 'val', 'test'])[0] == dict(train='train', val='val', test='test')
    assert assign([None, 'test']) == ({}, ['test'])
    assert [word_of(name) for name in ('annotations/instances_val2017.json', 'valid/_annotations.coco.json',
                                       'a.json')] \
        == ['val', 'valid', None]


def test_image_sets_of_voc(tmp_path):
    voc(tmp_path)
    sets = tmp_path / 'ImageSets' / 'Main'
    sets.mkdir(parents=True)
    (sets / 'train.txt').write_text('photo\n')
    stems = sorted(path.stem for path in (tmp_path / 'Annotations').iterdir())
    for old in tmp_path.glob('*/photo *'):  # image sets name stems without spaces
        old.rename(old.with_name(old.name.replace(' ', '_')))
    stems = [stem.replace(' ', '_') for stem in stems]
    (sets / 'train.txt').write_text('\n'.join(stems[:7]))
    (sets / 'val.txt').write_text('\n'.join(stems[7:9]))
    (sets / 'disc_train.txt').write_text('one 1\n')
    prepared = prepare(str(tmp_path))
    assert [len(part.pictures) for part in prepared.parts.values()] == [7, 2]
    (sets / 'val.txt').write_text('nobody')
    with pytest.raises(DataError, match=r"val\.txt.* 'nobody'"):
        prepare(str(tmp_path))


def test_files_named_on_the_command_line(tmp_path, capsys):
    coco(tmp_path / 'd', (('a.json', 6), ('b.json', 4), ('c.json', 4)))
    flags = ['--train', 'annotations/a.json', '--val', 'annotations/c.json']
    assert call(command, [str(tmp_path / 'd'), *flags, '--out', str(tmp_path / 'out')]) == 0
    out = capsys.readouterr().out
    assert '6        4' in out and 'disc' in out and 'median side' in out
    made = json.loads((tmp_path / 'out' / 'val.json').read_text())
    assert len(made['images']) == 4 and 'c_photo' in made['images'][0]['file_name']
    with pytest.raises(ConfigError, match='--train is needed'):
        call(command, [str(tmp_path / 'd'), *flags[2:]])


def test_classes_that_are_kept_and_their_order(tmp_path):
    prepared = prepare(str(coco(tmp_path)), classes=['square'])
    assert prepared.classes == ['square'] and any("['disc'], which --classes" in remark for remark in prepared.remarks)
    assert prepare(str(tmp_path), classes=['square', 'disc']).classes == ['square', 'disc']
    with pytest.raises(DataError, match=r"\['cat'\] are not among"):
        prepare(str(tmp_path), classes=['cat'])


def test_outlines_crowds_and_difficult_objects_stay(tmp_path):
    yolo(tmp_path / 'y', names='classes.txt')
    (tmp_path / 'y' / 'labels' / 'photo 0.txt').write_text('1 0.25 0.5 0.75 0.5 0.5 0.75\n')
    prepared = prepare(str(tmp_path / 'y'))
    notes = {picture.file: picture.things for part in prepared.parts.values() for picture in part.pictures}
    thing, = notes['images/photo 0.png']
    assert thing.box == [32, 48, 64, 24] and thing.outline == [[32, 48, 96, 48, 64, 72]]
    root = voc(tmp_path / 'v')
    path = root / 'Annotations' / 'photo 0.xml'
    path.write_text(path.read_text().replace('<difficult>0', '<difficult>1'))
    prepared = prepare(str(root))
    made = [coco_of(part, prepared.classes) for part in prepared.parts.values()]
    assert sum(note['iscrowd'] for coco in made for note in coco['annotations']) == 3


def test_sizes_are_those_of_the_upright_image(tmp_path):
    """A photograph on its side, as cameras write them: MMDetection turns it, so do the sizes."""
    root = coco(tmp_path)
    path = root / 'images' / 'train_photo 0.png'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    assert cv2.imread(str(path)).shape[:2] == (SIZE[1], SIZE[0])
    assert content(prepare(str(root))) == TRUE


# -- the split ----------------------------------------------------------------------------------------------------
def pool(labels):
    pictures = [Picture(f'{i}.png', 's', [Thing(label, [0, 0, 1, 1], '') for label in here])
                for i, here in enumerate(labels)]
    return Found('coco', {'all': Part('s', pictures, ['a', 'b', 'rare'])})


def test_the_split_is_seeded_holds_every_class_and_keeps_copies_together(tmp_path):
    labels = [['a']] * 30 + [['b']] * 8 + [['rare'], ['rare']] + [[]] * 10
    for i in range(50):
        write_image(tmp_path / f'{i}.png', np.full((8, 8, 3), i, np.uint8))
    for copy in (31, 32):
        shutil.copy(tmp_path / '30.png', tmp_path / f'{copy}.png')
    found, again, other = pool(labels), pool(labels), pool(labels)
    assert split(str(tmp_path), found, 0.2, 3) == split(str(tmp_path), again, 0.2, 3)
    split(str(tmp_path), other, 0.2, 4)
    val = {picture.file for picture in found.parts['val'].pictures}
    assert val == {picture.file for picture in again.parts['val'].pictures}
    assert val != {picture.file for picture in other.parts['val'].pictures}
    for part in found.parts.values():
        assert {thing.label for picture in part.pictures for thing in picture.things} == {'a', 'b', 'rare'}
    assert 8 <= len(val) <= 13 and len({f'{i}.png' in val for i in (30, 31, 32)}) == 1
    assert sum(len(part.pictures) for part in found.parts.values()) == 50


# -- bad input ----------------------------------------------------------------------------------------------------
def edited(kind, edit):
    def make(root):
        MAKERS[kind](root, *(() if kind != 'coco' else ((('train.json', 6), ('val.json', 4)),)))
        if kind == 'coco':
            path = root / 'annotations' / 'val.json'
            content = json.loads(path.read_text())
            edit(root, content)
            path.write_text(json.dumps(content))
        else:
            edit(root)
    return make


def all_boxes(change):
    return lambda root, c: [note.update(bbox=change(*note['bbox'])) for note in c['annotations']]


def first_image(root, name='val'):
    return next(iter(sorted((root / 'images').glob(f'{name}_*'))))


def only_images(root):
    write_image(root / 'a.png', np.zeros((9, 9, 3), np.uint8))


def labelme(root):
    only_images(root)
    (root / 'a.json').write_text('{"shapes": []}')


def table(root):
    only_images(root)
    (root / 'a.csv').write_text('a.png,1,2,3,4,cat')


def two_formats(root):
    coco(root)
    (root / 'x.xml').write_text(xml([]))


def same_images(root):
    coco(root)
    shutil.copy(root / 'annotations' / 'train.json', root / 'annotations' / 'val.json')


def yolo_corners(root):
    """The same boxes as shares x1 y1 x2 y2."""
    for path in (root / 'labels').glob('*.txt'):
        rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines()]
        path.write_text(''.join(f'{int(label)} {x - w / 2} {y - h / 2} {x + w / 2} {y + h / 2}\n'
                                for label, x, y, w, h in rows))


@pytest.mark.parametrize('make, words', [
    (lambda root: shutil.rmtree(root), 'does not exist'),
    (lambda root: None, 'is empty'),
    (only_images, r'no COCO, VOC or YOLO annotations .*1 \.png.*Expected are'),
    (labelme, r"a\.json looks like LabelMe's"),
    (table, r'1 \.csv.*tables and records'),
    (two_formats, r'several formats: coco, voc.*--format'),
    (same_images, r'12 images are in train and in val.*train_photo 0'),
    (lambda root: coco(root, (('a.json', 3), ('b.json', 3))), r'none is called train: .*a\.json.*--train FILE'),
    (lambda root: coco(root, (('train.json', 3), ('train_2.json', 3))), r'several annotation files for train.*--train'),
    (edited('coco', lambda root, c: first_image(root).unlink()),
     r'1 images are not in .*val_photo 0\.png, named in .*val'),
    (edited('coco', lambda root, c: first_image(root).write_bytes(b'no')), r'1 images are broken.*val_photo 0\.png'),
    (edited('coco', lambda root, c: c['images'][0].update(width=500)), r'another size.*is 128x96, .* says 500x96'),
    (edited('coco', all_boxes(lambda x, y, w, h: [x / 128, y / 96, w / 128, h / 96])), r"val\.json.*look like shares"),
    (edited('coco', all_boxes(lambda x, y, w, h: [x, y, x + w, y + h])),
     r"val\.json.*look like corners.*\[x, y, width"),
    (edited('coco', lambda root, c: c['annotations'][0].update(bbox=[5, 5, 0, 9])),
     r'val\.json, annotation 0: .*empty or outside|1 boxes are empty.*annotation 0.*--skip-bad-boxes'),
    (edited('coco', lambda root, c: c['annotations'][0].update(bbox=[300, 5, 9, 9])), '1 boxes are empty or outside'),
    (edited('coco', lambda root, c: c['annotations'][0].update(bbox=[1, 2, 3])), r'annotation 0 has bbox \[1, 2, 3\]'),
    (edited('coco', lambda root, c: c['annotations'][0].update(category_id=1)),
     r'annotation 0 is of category 1; the cat'),
    (edited('coco', lambda root, c: c['annotations'][0].update(image_id=5)), 'annotation 0 is of an image that'),
    (edited('coco', lambda root, c: c['categories'][0].update(name='Disc')),
     r"val\.json has objects of \['Disc'\], the classes of .*train\.json are \['disc', 'square'\]"),
    (edited('coco', lambda root, c: c['categories'][0].update(name='square')), 'not different'),
    *((edited('coco', lambda root, c, key=key, value=value, part=part: c[part][0].update({key: value})), words)
      for part, key, value, words in (
        ('annotations', 'category_id', [1], r'annotation 0 is of category \[1\]'),
        ('annotations', 'image_id', [1], r'an image that the file does not list, \[1\]'),
        ('annotations', 'bbox', [True, 1, 2, 3], r'annotation 0 has bbox \[True'),
        ('annotations', 'bbox', [10**400, 1, 2, 3], r'annotation 0 has bbox \[1000'),
        ('annotations', 'bbox', [float('nan'), 1, 2, 3], r'annotation 0 has bbox \[nan'),
        ('annotations', 'bbox', None, r'annotation 0 has bbox None'),
        ('annotations', 'segmentation', 'abc', r"annotation 0 has segmentation 'abc'; polygons"),
        ('annotations', 'iscrowd', 'no', r"annotation 0 has iscrowd 'no'; 0 or 1"),
        ('images', 'id', [1], r"the image \{'id': \[1\]"),
        ('images', 'width', '128', r"width and height \('128', 96\)"),
        ('images', 'file_name', '../../x.png', r'1 images are not in .*\.\./\.\./x\.png, named in'),
        ('categories', 'id', [1], r"the category \{'id': \[1\]"),
        ('categories', 'name', ' ', 'the category .*expected'))),
    (edited('coco', lambda root, c: [note.update(iscrowd=1) for note in c['annotations']]),
     'nothing but crowds or difficult objects is annotated in the 4 images of val'),
    (edited('coco', lambda root, c: c['annotations'].clear()), r'nothing is annotated in the 4 images of val'),
    (edited('coco', lambda root, c: c['images'].clear() or c['annotations'].clear()), 'lists no images'),
    (edited('coco', lambda root, c: c['images'][1].update(id=0)), 'two images have the id 0'),
    (lambda root: coco(root) and (root / 'annotations' / 'train.json').write_text('{'), r'train\.json.* no JSON'),
    (edited('voc', lambda root: (root / 'JPEGImages' / 'photo 2.png').unlink()), r'photo 2\.jpg, named in Annotations'),
    (edited('voc', lambda root: (root / 'Annotations' / 'photo 2.xml').write_text('<annotation>')),
     r'photo 2\.xml: no valid'),
    (edited('voc', lambda root: (root / 'Annotations' / 'photo 2.xml').write_text(xml([(0, 9, 9, -5, 4)]))),
     r'photo 2\.xml, object 1: disc'),
    (edited('voc', lambda root: (root / 'Annotations' / 'photo 2.xml').write_text(xml([(0, 1, 1, 2, 2)], (10, 10)))),
     r'is 128x96, .*photo 2\.xml says 10x10'),
    (edited('voc', lambda root: (root / 'Annotations' / 'photo 2.xml').write_text('<annotation/>')),
     r'photo 2\.xml: <size/width> is missing'),
    (edited('yolo', yolo_corners), r'photo 0\.txt, line \d, and \d+ more of 33 boxes of train leave their image, and '
                                   r'all would be sound as corners x1 y1 x2 y2'),
    (edited('yolo', lambda root: (root / 'labels' / 'photo 2.txt').write_text('0 -.1 .5 .3 .1\n')), 'a negative one'),
    (edited('yolo', lambda root: (root / 'data.yaml').write_text('names: [a, b]\ntrain: 5\n')),
     r'data\.yaml: train is 5; a folder or list of images'),
    (edited('yolo', lambda root: [(root / 'data.yaml').unlink(), (root / 'classes.txt').write_bytes(b'caf\xe9\nb\n')]),
     r"classes\.txt' cannot be read as UTF-8 text"),
    (edited('yolo', lambda root: (root / 'data.yaml').unlink()), r'nothing that names their classes.*classes\.txt'),
    (edited('yolo', lambda root: (root / 'classes.txt').write_text('cat\ndog')),
     r'data\.yaml names .*classes\.txt names'),
    (edited('yolo', lambda root: (root / 'images' / 'photo 2.png').unlink()),
     r'1 label files have no picture.*photo 2\.txt'),
    (edited('yolo', lambda root: (root / 'labels' / 'photo 2.txt').write_text('0 40 50 12 9\n')),
     r'photo 2\.txt, line 1.*look like pixels; divide x and w by the width \(128\)'),
    (edited('yolo', lambda root: (root / 'labels' / 'photo 2.txt').write_text('\n5 .5 .5 .1 .1\n')),
     r'line 2: class 5, but data\.yaml names 2'),
    (edited('yolo', lambda root: (root / 'labels' / 'photo 2.txt').write_text('disc .5 .5 .1 .1\n')),
     r"found 'disc .5"),
    (edited('yolo', lambda root: (root / 'labels' / 'photo 2.txt').write_text('0 .5 .5 .1 .1 .9\n')), r'a confidence'),
    (edited('yolo', lambda root: (root / 'labels' / 'photo 2.txt').write_text('0 .5 .5 0 .1\n')), r'1 boxes are empty'),
])
def test_bad_input_names_the_file_and_what_would_do(make, words, tmp_path):
    root = tmp_path / 'data'
    root.mkdir()
    make(root)
    with pytest.raises(DataError, match=f'(?s){words}'):
        prepare(str(root))


def test_bad_boxes_can_be_left_out_and_are_listed(tmp_path):
    edited('coco', lambda root, c: c['annotations'][0].update(bbox=[5, 5, 0, 9]))(tmp_path)
    prepared = prepare(str(tmp_path), skip_bad_boxes=True)
    assert any('left out: 1 boxes' in remark and 'annotation 0' in remark for remark in prepared.remarks)


@pytest.mark.parametrize('edit, words', [
    (lambda c: c['annotations'][0].update(bbox=[3, 4, .3, .4]), 'WARNING: 1 boxes are thinner than a pixel.*tion 0'),
    (lambda c: c['categories'][0].update(name='Square'), r"WARNING: \['Square', 'square'\] are different classes, by")])
def test_what_is_odd_is_a_warning(edit, words, tmp_path):
    coco(tmp_path)
    path = tmp_path / 'annotations' / 'train.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    assert re.search(words, '\n'.join(prepare(str(tmp_path)).remarks))


def test_boxes_in_corners_of_yolo_that_could_be_meant_are_not_refused(tmp_path):
    """A single box that leaves its image among sound ones is clipped, as a hand draws them."""
    yolo(tmp_path)
    (tmp_path / 'labels' / 'photo 2.txt').write_text('0 .95 .5 .3 .2\n')
    assert any('clipped: 1 boxes' in remark for remark in prepare(str(tmp_path)).remarks)


def test_a_class_that_is_missing_in_one_part_is_a_warning(tmp_path):
    def without_discs(root, c):
        c['annotations'] = [note for note in c['annotations'] if note['category_id'] != 7]
        c['categories'].append(dict(id=99, name='nothing'))
    edited('coco', without_discs)(tmp_path)
    assert any("no object of ['disc'] in val" in remark for remark in prepare(str(tmp_path)).remarks)


def test_what_is_there_is_only_replaced_when_asked(tmp_path):
    prepared = prepare(str(coco(tmp_path / 'd')))
    out = tmp_path / 'out'
    write(prepared, str(out))
    before = (out / 'train.json').stat().st_mtime_ns
    write(prepared, str(out))  # the same content is no conflict, and nothing is written
    assert (out / 'train.json').stat().st_mtime_ns == before
    (out / 'val.json').write_text('mine')
    with pytest.raises(DataError, match=r'val\.json is there with another content.*--overwrite'):
        write(prepared, str(out))
    assert (out / 'val.json').read_text() == 'mine'
    write(prepared, str(out), overwrite=True)
    assert (out / 'val.json').read_text() != 'mine'
