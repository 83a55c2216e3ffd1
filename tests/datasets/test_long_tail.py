"""A made long tail, and AP by how often a class was seen."""
import argparse
import json
from types import SimpleNamespace

import pytest

from kd_det.cli import compare as cli
from kd_det.compare.accuracy import FIGURES
from kd_det.compare.frequency import Group, frequency_columns, groups_of, mean_ap
from kd_det.compare.rows import Member, Row
from kd_det.datasets.long_tail import images_per_class, long_tail, targets, write_long_tail
from kd_det.errors import CompareError, DataError


def coco(per_image):
    """Images, each with the classes named."""
    names = sorted({name for classes in per_image for name in classes})
    ids = {name: i + 1 for i, name in enumerate(names)}
    notes = [dict(id=100 * i + j, image_id=i, category_id=ids[name], bbox=[0, 0, 4, 4])
             for i, classes in enumerate(per_image) for j, name in enumerate(classes)]
    return dict(images=[dict(id=i, file_name=f'{i}.png') for i in range(len(per_image))], annotations=notes,
                categories=[dict(id=i, name=name) for name, i in ids.items()])


def test_targets_by_hand():
    counts = dict(a=50, b=80, c=60)
    assert targets(counts, 4) == dict(b=80, c=40, a=20)
    assert targets(counts, 100, ['a', 'b', 'c']) == dict(a=50, b=5, c=1)
    for wrong, words in (((counts, 1), '--ratio: found 1'), ((counts, 4, ['a', 'b']), '--order'),
                         ((dict(a=3), 4), 'no tail')):
        with pytest.raises(DataError, match=words):
            targets(*wrong)


def test_whole_images_are_taken_and_no_class_has_more_than_its_target():
    whole = coco([['a']] * 20 + [['b']] * 20 + [['c']] * 20 + [['a', 'c']] * 5 + [[]] * 3)
    assert images_per_class(whole) == dict(a=25, b=20, c=25)
    made = long_tail(whole, 25, seed=0, order=['a', 'b', 'c'])
    found = images_per_class(made)
    assert found['b'] == 5 and found['c'] == 1 and found['a'] in (20, 21), 'a stands beside c in five images: one fits'
    kept = {image['id'] for image in made['images']}
    assert [n for n in whole['annotations'] if n['image_id'] in kept] == made['annotations'], 'an object lost its label'
    assert made == long_tail(whole, 25, seed=0, order=['a', 'b', 'c'])
    assert made != long_tail(whole, 25, seed=1, order=['a', 'b', 'c'])
    with pytest.raises(DataError, match=r"no image is left for \['[bc]'\]"):
        long_tail(coco([['a', 'c'], ['a', 'b']]), 2, seed=0, order=['b', 'c', 'a'])


def test_the_file_appears_whole_and_the_table_counts(tmp_path):
    path, out = tmp_path / 'a.json', tmp_path / 'out' / 'b.json'
    path.write_text(json.dumps(coco([['a']] * 8 + [['b']] * 8)))
    said = write_long_tail(str(path), 8, 0, str(out))
    assert '9 of 16 images' in said and 'a      8 of 8' in said and 'b      1 of 8' in said
    assert images_per_class(json.loads(out.read_text())) == dict(a=8, b=1)
    path.write_text('{}')
    with pytest.raises(DataError, match='cannot be read as a COCO'):
        write_long_tail(str(path), 8, 0, str(out))


def test_groups_and_their_mean_ap_by_hand():
    counts = dict(r1=10, r2=1, c=11, f=101)
    groups = groups_of(counts)
    assert [(g.name, g.classes) for g in groups] == [('rare', ['r1', 'r2']), ('common', ['c']), ('frequent', ['f'])]
    assert str(groups[0]) == 'rare (2 of 1-10 images)'
    assert [group.name for group in groups_of(counts, (11, 200))] == ['rare', 'common']
    assert mean_ap(dict(r1=10.0, r2=None, c=3.0), ['r1', 'r2']) == 10.0 and mean_ap({}, ['c']) is None
    with pytest.raises(CompareError, match='rising'):
        groups_of(counts, (5, 5))


def row(name, *seeds):
    def member(seed, per_class):
        accuracy = SimpleNamespace(figures=dict.fromkeys(FIGURES), per_class=per_class)
        return Member(SimpleNamespace(name=name), seed, '', accuracy, None, None, 0.0)
    return Row(name, [member(*one) for one in enumerate(seeds)], parameters=1000)


def test_the_table_takes_means_over_classes_then_over_seeds():
    groups = [Group('rare', ['a', 'b'], 1, 9), Group('frequent', ['c'], 200, 200)]
    names, columns = frequency_columns([row('x', dict(a=10.0, b=20.0, c=50.0), dict(a=20.0, b=30.0, c=50.0)),
                                        row('y', dict(a=1.0, b=2.0, c=None))], groups)
    assert names == ['rare (2 of 1-9 images)', 'frequent (1 of 200 images)']
    assert columns[0].cells == ['20.0 ± 7.1', '50.0 ± 0.0'] and columns[1].cells == ['1.5', '-']
    with pytest.raises(CompareError, match=r"no image of \['z'\]"):
        frequency_columns([row('x', dict(z=1.0))], groups)


def test_kd_det_compare_prints_it_and_refuses_before_it_measures(tmp_path):
    path = tmp_path / 'train.json'
    path.write_text(json.dumps(coco([['a']] * 3 + [['b']] * 12)))
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)

    def parsed(*more):
        return parser.parse_args(['x', '--no-latency', '--frequency', *more])
    result = SimpleNamespace(rows=[row('x', dict(a=10.0, b=20.0))], notes=[])
    text = cli.render(result, parsed(str(path)))
    assert 'mean AP of classes' in text and 'rare (1 of 3 images)' in text and 'common (1 of 12 images)' in text
    assert 'frequent (1 of 12 images)' in cli.render(result, parsed(str(path), '--frequency-limits', '3', '11'))
    for arguments, words in (((str(tmp_path / 'gone.json'),), 'cannot be read'),
                             ((str(path), '--frequency-limits', '5', '2'), 'rising')):
        with pytest.raises(CompareError, match=words):
            cli.run(parsed(*arguments))
