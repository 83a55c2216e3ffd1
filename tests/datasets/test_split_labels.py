"""A part of a set keeps its labels; the others are listed without theirs."""
import json

import pytest

from kd_det.datasets.split_labels import split, write_split
from kd_det.errors import DataError


def coco(images=10, rare_in=0):
    notes = [dict(id=i, image_id=i, category_id=1, bbox=[0, 0, 5, 5]) for i in range(images)]
    notes.append(dict(id=99, image_id=rare_in, category_id=2, bbox=[1, 1, 5, 5]))
    return dict(images=[dict(id=i, file_name=f'{i}.png') for i in range(images)], annotations=notes,
                categories=[dict(id=1, name='often'), dict(id=2, name='rare')])


def test_every_image_is_on_one_side_and_no_label_leaks():
    labelled, rest = split(coco(rare_in=6), 0.3, seed=0)
    one, other = ({image['id'] for image in side['images']} for side in (labelled, rest))
    assert len(one) == 3 and one | other == set(range(10)) and not one & other and 6 in one
    assert {note['image_id'] for note in labelled['annotations']} == one and rest['annotations'] == []
    assert split(coco(rare_in=6), 0.3, seed=0) == (labelled, rest)
    assert rest['categories'] == labelled['categories'] == coco()['categories']


def test_a_class_must_keep_an_object_and_files_stay(tmp_path):
    path, out = tmp_path / 'all.json', tmp_path / 'out'
    path.write_text(json.dumps(coco(rare_in=1)))
    with pytest.raises(DataError, match=r"no object of \['rare'\] in 3 images"):
        write_split(str(path), 0.3, 0, str(out))
    assert not out.exists()
    lines = write_split(str(path), 0.9, 0, str(out))
    assert lines[0].endswith('labelled.json: 9 images, 10 objects') and len(lines) == 2
    with pytest.raises(DataError, match='--overwrite'):
        write_split(str(path), 0.5, 1, str(out))
    assert len(json.loads((out / 'labelled.json').read_text())['images']) == 9
    for wrong, words in ((str(tmp_path / 'gone.json'), 'cannot be read'), (str(out / 'x.json'), 'not in COCO format')):
        (out / 'x.json').write_text('[]')
        with pytest.raises(DataError, match=words):
            write_split(wrong, 0.5, 0, str(out), overwrite=True)
    with pytest.raises(DataError, match=r'--part: found 1\.5'):
        write_split(str(path), 1.5, 0, str(out))
