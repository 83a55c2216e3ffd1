"""The digits set: disjoint splits, repeatable bytes, valid COCO, nothing lost."""
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kd_det.cli import digits
from kd_det.cli.command import call, guarded
from kd_det.datasets import make_digits

cv2 = pytest.importorskip('cv2')
pytest.importorskip('PIL')
sklearn_datasets = pytest.importorskip('sklearn.datasets')

TOOL = Path(__file__).parents[2] / 'tools' / 'datasets' / 'make_digits.py'

SMALL = {'train': 6, 'dev': 3, 'val': 4, 'size': (160, 120), 'seed': 0}


def quiet(text):
    pass


@pytest.fixture(scope='module')
def sources():
    return make_digits.load_sources()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return make_digits.make(tmp_path_factory.mktemp('digits') / 'set', **SMALL, say=quiet)


@pytest.fixture
def own(tmp_path, whole):
    """A copy to break, alone in its folder."""
    import shutil
    return Path(shutil.copytree(whole, tmp_path / 'in' / 'set'))


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in sorted(folder.rglob('*')) if p.is_file()}


def coco_of(folder, split):
    return json.loads((folder / 'annotations' / f'{split}.json').read_text())


def test_samples_are_divided_by_class_and_shared_by_no_two_splits(sources):
    images, targets, _ = sources
    pools = make_digits.split_samples(targets, seed=3)
    every = np.concatenate([part for pool in pools.values() for part in pool])
    assert len(every) == len(targets) == 1797
    assert np.array_equal(np.sort(every), np.arange(1797))
    for split, share in zip(('train', 'dev', 'val'), (0.6, 0.15, 0.25)):
        for label, part in enumerate(pools[split]):
            assert (targets[part] == label).all()
            assert abs(len(part) - share * (targets == label).sum()) <= 1
    assert not np.array_equal(pools['val'][0], make_digits.split_samples(targets, 4)['val'][0])
    # nor does the same picture hide behind two numbers
    assert len(np.unique(images.reshape(1797, 64), axis=0)) == 1797


def test_no_pixel_of_a_photograph_serves_two_splits(sources):
    photos = sources[2]
    tiles = make_digits.split_tiles(photos)
    uses = [np.zeros(photo.shape[:2], int) for photo in photos]
    for split in tiles.values():
        for number, (x, y, w, h) in split:
            uses[number][y:y + h, x:x + w] += 1
    assert max(use.max() for use in uses) == 1
    assert all({number for number, _ in split} == {0, 1} for split in tiles.values())


def test_annotations_name_samples_of_their_split_and_class(sources, whole):
    pools = make_digits.split_samples(sources[1], seed=0)
    for split in ('train', 'dev', 'val'):
        coco = coco_of(whole, split)
        assert [c['name'] for c in coco['categories']] == list('0123456789')
        regions = [(n, list(box)) for n, box in make_digits.split_tiles(sources[2])[split]]
        assert all((image['photo'], image['region']) in regions for image in coco['images'])
        for item in coco['annotations']:
            assert item['sample'] in pools[split][item['category_id'] - 1]


def test_bytes_repeat_whatever_the_other_splits_ask_for(tmp_path, whole):
    more = dict(SMALL, train=9, dev=1)
    other = make_digits.make(tmp_path / 'more', **more, say=quiet)
    one, two = contents(whole), contents(other)
    assert one['annotations/val.json'] == two['annotations/val.json']
    shared = [name for name in one if name.startswith('images/') and name in two]
    assert len(shared) == 6 + 1 + 4
    assert all(one[name] == two[name] for name in shared)
    few, many = coco_of(whole, 'train'), coco_of(other, 'train')
    assert many['images'][:6] == few['images']
    assert many['annotations'][:len(few['annotations'])] == few['annotations']
    seed = contents(make_digits.make(tmp_path / 'seed', **dict(SMALL, seed=1), say=quiet))
    assert all(one[name] != seed[name] for name in one if name.startswith('images/'))


def test_the_files_are_coco_and_their_own_boxes_score_one(whole, capsys):
    coco_module = pytest.importorskip('pycocotools.coco')
    from pycocotools.cocoeval import COCOeval
    seen = set()
    for split in ('train', 'dev', 'val'):
        coco = coco_module.COCO(str(whole / 'annotations' / f'{split}.json'))
        assert len(coco.imgs) == SMALL[split]
        assert not seen & set(coco.imgs)  # ids may be pooled
        seen |= set(coco.imgs)
        for image in coco.imgs.values():
            pixels = cv2.imread(str(whole / 'images' / image['file_name']))
            assert pixels.shape == (image['height'], image['width'], 3) == (120, 160, 3)
        for item in coco.anns.values():
            x, y, w, h = item['bbox']
            assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= 160 and y + h <= 120
            assert item['area'] == w * h and item['iscrowd'] == 0
        found = coco.loadRes([dict(a, score=0.9) for a in coco.anns.values()])
        evaluation = COCOeval(coco, found, 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1)


def test_the_same_set_is_kept_and_not_rewritten(own):
    before, stamps = contents(own), {p: p.stat().st_mtime_ns for p in own.rglob('*')}
    said = []
    make_digits.make(own, **SMALL, say=said.append)
    assert contents(own) == before and {p: p.stat().st_mtime_ns for p in own.rglob('*')} == stamps
    assert len(said) == 1 and 'kept' in said[0]


def test_other_parameters_are_refused_and_force_replaces(own):
    before = contents(own)
    other = dict(SMALL, val=5)
    with pytest.raises(FileExistsError, match=r"'val': 4.*'val': 5.*--force"):
        make_digits.make(own, **other, say=quiet)
    assert contents(own) == before
    make_digits.make(own, **other, force=True, say=quiet)
    assert len(coco_of(own, 'val')['images']) == 5
    assert [p.name for p in own.parent.iterdir()] == ['set']  # nothing lies around


def test_a_lost_image_is_noticed_and_force_mends_it(own):
    before = contents(own)
    (own / 'images' / 'dev_000001.jpg').unlink()
    with pytest.raises(FileExistsError, match=r'damaged.*dev_000001'):
        make_digits.make(own, **SMALL, say=quiet)
    make_digits.make(own, **SMALL, force=True, say=quiet)
    assert contents(own) == before


def test_files_of_others_are_never_deleted(own, tmp_path):
    (own / 'images' / 'mine.txt').write_text('precious')
    make_digits.make(own, **SMALL, say=quiet)  # the set itself is whole: fine
    with pytest.raises(FileExistsError, match=r'images/mine\.txt'):
        make_digits.make(own, **dict(SMALL, seed=2), force=True, say=quiet)
    assert (own / 'images' / 'mine.txt').read_text() == 'precious'
    strange = tmp_path / 'strange'
    strange.mkdir()
    (strange / 'thesis.txt').write_text('precious')
    for force in (False, True):
        with pytest.raises(FileExistsError, match='no digits set'):
            make_digits.make(strange, **SMALL, force=force, say=quiet)
    assert contents(strange) == {'thesis.txt': b'precious'}


def test_an_empty_folder_behind_a_link_is_filled(tmp_path, whole):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'real')
    make_digits.make(tmp_path / 'link', **SMALL, say=quiet)
    assert (tmp_path / 'link').is_symlink()
    assert contents(tmp_path / 'real') == contents(whole)


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_an_interrupted_run_leaves_nothing_and_keeps_the_old_set(tmp_path, own, monkeypatch, error):
    write = make_digits.write_split

    def fails_in_val(folder, split, *args):
        if split == 'val':
            raise error('stop')
        write(folder, split, *args)
    monkeypatch.setattr(make_digits, 'write_split', fails_in_val)
    with pytest.raises(error):
        make_digits.make(tmp_path / 'new' / 'set', **SMALL, say=quiet)
    assert list((tmp_path / 'new').iterdir()) == []
    before = contents(own)
    with pytest.raises(error):
        make_digits.make(own, **dict(SMALL, seed=9), force=True, say=quiet)
    assert contents(own) == before and len(list(own.parent.iterdir())) == 1


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_an_interrupt_between_the_two_renames_brings_the_old_set_back(own, monkeypatch, error):
    before, rename = contents(own), Path.rename

    def fails_for_new(self, target):
        if self.name == 'new':
            raise error('stop')
        return rename(self, target)
    monkeypatch.setattr(Path, 'rename', fails_for_new)
    with pytest.raises(error):
        make_digits.make(own, **dict(SMALL, seed=9), force=True, say=quiet)
    assert contents(own) == before and len(list(own.parent.iterdir())) == 1


def test_a_terminated_process_leaves_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, str(TOOL), '--out', str(tmp_path / 'set'),
                                '--train', '100000'], stdout=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 60
        while not list(tmp_path.rglob('train_*.jpg')) and time.monotonic() < limit:
            time.sleep(0.05)
        assert list(tmp_path.rglob('train_*.jpg'))  # it was at work
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('argument, named', [
    ({'val': 0}, '--val 0'), ({'train': -1}, '--train -1'), ({'size': (32, 240)}, '--size'),
    ({'seed': -1}, '--seed -1')])
def test_numbers_out_of_range_are_named(tmp_path, argument, named):
    with pytest.raises(ValueError, match=named):
        make_digits.make(tmp_path / 'set', **dict(SMALL, **argument), say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_command_line_says_what_is_wrong_and_returns_2(own, capsys):
    assert guarded('digits', call, digits, ['--out', str(own), '--train', '7']) == 2
    assert '--force' in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        call(digits, ['--size', '320'])
    assert stop.value.code == 2 and '320x240' in capsys.readouterr().err


def test_missing_scikit_learn_is_named_with_the_pip_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(ImportError, match=r'pip install scikit-learn pillow'):
        make_digits.make(tmp_path / 'set', **SMALL, say=quiet)
    assert list(tmp_path.iterdir()) == []
