"""Recorded answers: equal to the live teacher's, of one exact view, of one teacher; and what is refused."""
import copy

import numpy as np
import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict

from kd_det.errors import CheckpointMismatch, ConfigError
from kd_det.sources import FrozenTeacher, RecordedTeacher
from kd_det.sources.shards import Shards

CHEN = [dict(type='RPNDistillation'), dict(type='RCNNDistillation'), dict(type='Hint', layer='neck')]
BATCH = dict(sizes=((96, 128), (64, 96)), objects=(3, 2), seed=5)


def distiller(student, terms, seed=1, **teacher):
    cfg = ConfigDict(copy.deepcopy(student))
    cfg.update(student_type=cfg.type, type='Distiller', teacher=dict(check=0, **teacher), terms=copy.deepcopy(terms))
    return build(cfg, seed)


@pytest.fixture(scope='module')
def two_stage(teacher_checkpoint):
    return faster_rcnn_cfg(), dict(config=teacher_checkpoint[0], checkpoint=teacher_checkpoint[1])


@pytest.fixture(scope='module')
def paa(tmp_path_factory):
    teacher = dense_cfg('paa', width=16)
    model = build(copy.deepcopy(teacher), 7)
    with torch.no_grad():  # fresh heads say the same everywhere, and rounding decides between ties
        for parameter in model.bbox_head.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    path = save_checkpoint(model, tmp_path_factory.mktemp('paa') / 'teacher.pth')
    return dense_cfg('paa'), dict(config=teacher, checkpoint=path)


def numbers(model, **batch):
    losses = losses_of(model, make_batch(**{**BATCH, **batch}))
    return {k: float((sum(v) if isinstance(v, list) else v).detach()) for k, v in losses.items()}


def mirrored(batch):
    batch = copy.deepcopy(batch)
    for i, sample in enumerate(batch['data_samples']):
        batch['inputs'][i] = batch['inputs'][i].flip(-1)
        sample.set_metainfo(dict(flip=True, flip_direction='horizontal'))
    return batch


@pytest.mark.parametrize('kind', ['two_stage', 'paa'])
def test_recorded_losses_and_gradients_are_the_live_teachers(kind, request, tmp_path):
    student, teacher = request.getfixturevalue(kind)
    terms = CHEN if kind == 'two_stage' else [dict(type='SoftLabel'), dict(type='LabelAssignment'),
                                              dict(type='Hint', layer='bbox_head.cls_convs.0')]
    live = distiller(student, terms, **teacher)
    first = distiller(student, terms, record=str(tmp_path), **teacher)
    wanted, seen = numbers(live), numbers(first)
    assert isinstance(first.teacher, RecordedTeacher) and first.teacher.counts == dict(read=0, asked=2)
    first.teacher.shards.flush()
    later = distiller(student, terms, record=dict(folder=str(tmp_path), missing='error'), **teacher)
    losses = losses_of(later, make_batch(**BATCH))
    total(losses).backward()
    again = {k: float((sum(v) if isinstance(v, list) else v).detach()) for k, v in losses.items()}
    assert later.teacher.counts == dict(read=2, asked=0)
    assert again == seen  # what is asked live is rounded as what is read
    for name in wanted:
        assert again[name] == pytest.approx(wanted[name], rel=2e-3, abs=1e-6), name
    total(losses_of(live, make_batch(**BATCH))).backward()
    for (name, one), other in zip(live.named_parameters(), later.parameters(), strict=True):
        if one.grad is not None:
            assert (one.grad - other.grad).abs().max() <= 5e-3 * max(one.grad.abs().max(), 1e-3), name


def test_nothing_of_the_network_has_memory_when_all_is_recorded(two_stage, tmp_path):
    student, teacher = two_stage
    first = distiller(student, CHEN, record=str(tmp_path), **teacher)
    numbers(first)
    first.teacher.shards.flush()
    later = distiller(student, CHEN, record=str(tmp_path), **teacher)
    numbers(later)
    real = {name.split('.')[0] for name, p in later.teacher.model.named_parameters() if not p.is_meta}
    assert real == {'roi_head'}
    hints = distiller(student, CHEN[2:], record=str(tmp_path), **teacher)
    numbers(hints)
    assert all(p.is_meta for p in hints.teacher.model.parameters())


def test_values_on_disk_are_the_live_ones_in_half_precision(two_stage, tmp_path):
    student, teacher = two_stage
    model = distiller(student, CHEN[2:], record=str(tmp_path), **teacher)
    batch = model.data_preprocessor(make_batch(**BATCH), True)
    read = model.teacher.answers(batch['inputs'], batch['data_samples'])
    live = FrozenTeacher(**teacher, student_preprocessor=model.data_preprocessor)
    live.load()
    with torch.no_grad():
        levels = live.model.extract_feat(live.prepare(batch['inputs'], batch['data_samples']))
    for i, level in enumerate(levels):
        error = (read[f'layer/neck/{i}'] - level).abs()
        assert (error <= level.abs() * 2**-11 + 3.1e-8 + 1e-5 * level.abs().max()).all()


def test_a_mirrored_view_has_an_entry_of_its_own(two_stage, tmp_path):
    student, teacher = two_stage
    model = distiller(student, CHEN[2:], record=str(tmp_path), **teacher)
    plain = make_batch(**BATCH)
    answers = []
    for batch in (plain, mirrored(plain)):
        data = model.data_preprocessor(copy.deepcopy(batch), True)
        answers.append(model.teacher.answers(data['inputs'], data['data_samples'])['layer/neck/0'])
    assert len(model.teacher.shards) == 4
    assert (answers[0][0].flip(-1) - answers[1][0]).abs().max() > 1e-3  # a mirrored map is another thing
    data = model.data_preprocessor(mirrored(plain), True)
    again = model.teacher.answers(data['inputs'], data['data_samples'])['layer/neck/0']
    assert torch.equal(again, answers[1]) and model.teacher.counts == dict(read=2, asked=4)


def test_a_mirrored_image_that_does_not_say_so_is_found_out(two_stage, tmp_path):
    student, teacher = two_stage
    model = distiller(student, CHEN[2:], record=str(tmp_path), **teacher)
    numbers(model)
    batch = mirrored(make_batch(**BATCH))
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(flip=False))
    with pytest.raises(ConfigError, match='colours of image 0'):
        losses_of(model, batch)


def test_one_record_serves_students_that_normalise_otherwise(two_stage, tmp_path):
    student, teacher = two_stage
    first = distiller(student, CHEN[2:], record=str(tmp_path), **teacher)
    numbers(first)
    first.teacher.shards.flush()
    other = copy.deepcopy(student)
    other.data_preprocessor.update(mean=[90.] * 3, std=[60.] * 3, bgr_to_rgb=not other.data_preprocessor.bgr_to_rgb)
    second = distiller(other, CHEN[2:], record=dict(folder=str(tmp_path), missing='error'), **teacher)
    live = distiller(other, CHEN[2:], **teacher)
    name = 'loss_hint_neck'
    assert numbers(second)[name] == pytest.approx(numbers(live)[name], rel=2e-3)


def test_another_size_or_canvas_is_another_view(two_stage, tmp_path):
    student, teacher = two_stage
    model = distiller(student, CHEN[2:], record=str(tmp_path), **teacher)
    numbers(model)
    model.teacher.shards.flush()
    later = distiller(student, CHEN[2:], record=dict(folder=str(tmp_path), missing='error'), **teacher)
    with pytest.raises(ConfigError, match='no answer for image 0'):
        numbers(later, sizes=((64, 128), (64, 96)))
    with pytest.raises(ConfigError, match=r'no answer for image 0 .*canvas of 96x160'):
        numbers(later, sizes=((96, 128), (64, 160)))


def test_another_teachers_record_is_refused(two_stage, tmp_path, tmp_path_factory):
    student, teacher = two_stage
    first = distiller(student, CHEN[2:], record=str(tmp_path), **teacher)
    numbers(first)
    first.teacher.shards.flush()
    path = save_checkpoint(build(copy.deepcopy(teacher['config']), seed=8), tmp_path_factory.mktemp('o') / 'other.pth')
    with pytest.raises(ConfigError, match=r'answers of another teacher .weights'):
        distiller(student, CHEN[2:], record=str(tmp_path), config=teacher['config'], checkpoint=path)
    wider = copy.deepcopy(teacher['config'])
    wider.data_preprocessor.mean = [90.] * 3
    with pytest.raises(ConfigError, match=r'another teacher .network'):
        distiller(student, CHEN[2:], record=str(tmp_path), config=wider, checkpoint=teacher['checkpoint'])


def test_without_a_checkpoint_the_record_teaches_alone(two_stage, tmp_path):
    student, teacher = two_stage
    first = distiller(student, CHEN[2:], record=str(tmp_path), **teacher)
    wanted = numbers(first)
    first.teacher.shards.flush()
    alone = distiller(student, CHEN[2:], record=str(tmp_path), config=teacher['config'])
    assert numbers(alone) == wanted
    with pytest.raises(ConfigError, match=r'no answer .* there is no checkpoint'):
        numbers(alone, sizes=((64, 128), (64, 96)))
    with pytest.raises(ConfigError, match=r'teacher\.checkpoint: found None'):
        distiller(student, CHEN[1:], record=str(tmp_path), config=teacher['config'])


def test_weights_that_a_student_begins_with_come_from_the_checkpoint(tmp_path):
    student, config = faster_rcnn_cfg(), faster_rcnn_cfg(width=16)
    path = save_checkpoint(build(faster_rcnn_cfg(width=16), 7), tmp_path / 'teacher.pth')
    teacher = dict(config=config, checkpoint=path, inherit=['neck'])
    live = distiller(student, CHEN[2:], **teacher)
    recorded = distiller(student, CHEN[2:], record=str(tmp_path / 'r'), **teacher)
    numbers(recorded)
    recorded.teacher.shards.flush()
    again = distiller(student, CHEN[2:], record=str(tmp_path / 'r'), **teacher)
    held = live.teacher.inheritance._held
    assert all(p.is_meta for p in again.teacher.model.parameters()) and held
    assert all(torch.equal(again.teacher.inheritance._held[name], value) for name, value in held.items())


def test_a_checkpoint_of_another_network_is_refused_although_nothing_is_loaded(two_stage, tmp_path):
    student, teacher = two_stage
    narrow = save_checkpoint(build(faster_rcnn_cfg(), 7), tmp_path / 'narrow.pth')
    with pytest.raises(CheckpointMismatch, match='does not fit'):
        distiller(student, CHEN[1:2], record=str(tmp_path / 'r'), config=teacher['config'], checkpoint=narrow)


def test_two_writers_share_a_folder_and_read_each_others_answers(two_stage, tmp_path):
    student, teacher = two_stage
    writers = [distiller(student, CHEN[2:], record=str(tmp_path), **teacher) for _ in range(2)]
    batches = [make_batch(**{**BATCH, 'seed': seed}) for seed in (5, 6)]
    for sample in batches[1]['data_samples']:
        sample.set_metainfo(dict(img_id=sample.metainfo['img_id'] + 10))
    wanted = [losses_of(writer, copy.deepcopy(batch)) for writer, batch in zip(writers, batches)]
    for writer in writers:
        writer.teacher.shards.flush()
    assert len(list(tmp_path.iterdir())) == 2
    reader = distiller(student, CHEN[2:], record=dict(folder=str(tmp_path), missing='error'), **teacher)
    for batch, losses in zip(batches, wanted):
        assert torch.equal(losses_of(reader, batch)['loss_hint_neck'], losses['loss_hint_neck'])
    writers[0].teacher.shards._scanned -= 1000  # a minute later it looks for what others wrote
    losses_of(writers[0], batches[1])
    assert writers[0].teacher.counts == dict(read=2, asked=2)


def test_terms_that_run_the_teacher_are_refused_by_name(two_stage, tmp_path, monkeypatch):
    from kd_det.terms import Hint
    student, teacher = two_stage
    monkeypatch.setattr(Hint, 'asks', lambda self: None)
    with pytest.raises(ConfigError, match=r'teacher.record: terms\[0\], Hint, runs the teacher itself'):
        distiller(student, CHEN[2:], record=str(tmp_path), **teacher)


@pytest.mark.parametrize('record, message', [
    (dict(folder=''), 'record.folder'), (dict(folder='x', max_disk='much'), 'record.max_disk'),
    (dict(folder='x', missing='never'), 'record.missing'), (dict(), 'folder missing'), (3, 'record: found 3'),
    (dict(folder='x', max_dsk=1), 'did you mean'), (dict(folder='x', max_disk=0), 'record.max_disk')])
def test_a_record_that_cannot_be_meant(two_stage, record, message):
    student, teacher = two_stage
    with pytest.raises(ConfigError, match=message):
        distiller(student, CHEN[2:], record=record, **teacher)


def test_the_bound_is_kept_and_the_live_teacher_answers_beyond_it(two_stage, tmp_path):
    student, teacher = two_stage
    model = distiller(student, CHEN[2:], record=dict(folder=str(tmp_path), max_disk='20KB'), **teacher)
    wanted = numbers(distiller(student, CHEN[2:], **teacher))
    for _ in range(2):
        assert numbers(model)['loss_hint_neck'] == pytest.approx(wanted['loss_hint_neck'], rel=2e-3)
    assert model.teacher.shards.full and model.teacher.counts['asked'] >= 3
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20 * 1024


# -- shards -----------------------------------------------------------------------------------------------------------
IDENTITY = dict(weights='a', network='b', scale_factor='1')


def filled(folder, views, value=1.0):
    shards = Shards(str(folder), 2**20, 'teacher.record')
    shards.open(dict(IDENTITY))
    for view in views:
        same = np.full((3, 5), value, np.float16)
        shards.add(view, {'layer/neck/0': same, 'features/0': same, 'rpn/0/0': np.arange(7, dtype=np.float32)})
    shards.flush()
    return shards


def test_shards_of_two_writers_are_read_as_one(tmp_path):
    one, other = filled(tmp_path, ['aa', 'bb']), filled(tmp_path, ['cc'], 2.0)
    assert len(one) == 2 and len(other) == 3  # it saw the first's when it began
    one.scan()
    found = one.read('cc')
    assert len(one) == 3 and np.array_equal(found['layer/neck/0'], np.full((3, 5), 2.0, np.float16))
    assert np.array_equal(found['rpn/0/0'], np.arange(7, dtype=np.float32)) and found['rpn/0/0'].flags.aligned
    assert len(list(tmp_path.glob('*.npz'))) == 2 and one.read('dd') == {}


def test_one_array_under_two_names_is_stored_once(tmp_path):
    shards = Shards(str(tmp_path), 2**20, 'k')
    shards.open(dict(IDENTITY))
    big = np.zeros(2000, np.float16)
    shards.add('aa', {'x': big, 'y': big})
    assert shards._pending_bytes == 4000


def test_a_half_written_shard_is_skipped_and_a_damaged_entry_counts_as_missing(tmp_path):
    filled(tmp_path, ['aa'])
    filled(tmp_path, ['bb'])
    whole, cut = sorted(tmp_path.glob('*.npz'))
    content = cut.read_bytes()
    cut.write_bytes(content[:len(content) // 2])
    (tmp_path / 'x.npz.part').write_bytes(content)
    shards = Shards(str(tmp_path), 2**20, 'k')
    shards.open(dict(IDENTITY))
    assert len(shards) == 1
    view = next(iter(shards._places))
    content = bytearray(whole.read_bytes())
    place = content.index(np.full(15, 1.0, np.float16).tobytes())
    content[place] ^= 1
    whole.write_bytes(content)
    shards = Shards(str(tmp_path), 2**20, 'k')
    shards.open(dict(IDENTITY))
    assert shards.read(view) == {} and shards._places[view] == []


def test_reading_a_shard_executes_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return exec, ('raise SystemExit("executed")',)
    np.savez(tmp_path / 'bomb.npz', header=np.array([Bomb()], dtype=object))
    shards = Shards(str(tmp_path), 2**20, 'k')
    shards.open(dict(IDENTITY))
    assert len(shards) == 0


def test_a_full_disk_ends_recording_and_not_the_run(tmp_path, monkeypatch):
    import kd_det.sources.shards as module
    shards = Shards(str(tmp_path), 2**20, 'k')
    shards.open(dict(IDENTITY))

    def full(path, content):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(module, 'write_whole', full)
    assert shards.add('aa', {'x': np.zeros(3, np.float16)})
    shards.flush()
    assert 'No space left' in shards.full and not shards.add('bb', {'x': np.zeros(3, np.float16)})
