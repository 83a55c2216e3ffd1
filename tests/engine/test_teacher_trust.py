"""A checkpoint that is no trained network is refused before the first step; a bad teacher is said to be one."""
import functools
import http.server
import random
import re
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLASSES, build, faster_rcnn_cfg, run_tool

from kd_det.compat import download
from kd_det.compat.checkpoint import UnsafeCheckpointError, load, load_url
from kd_det.errors import CheckpointMismatch, ConfigError
from kd_det.sources import Ensemble, FrozenTeacher


@pytest.fixture(scope='module')
def good(teacher_checkpoint):
    """The teacher's own network, and what its checkpoint holds."""
    source = FrozenTeacher(teacher_checkpoint[0].to_dict(), teacher_checkpoint[1])
    return source, load(teacher_checkpoint[1])


def half(found):
    return dict(found, state_dict=dict(list(found['state_dict'].items())[::2]))


def changed(edit):
    def apply(found):
        state = {name: value.clone() for name, value in found['state_dict'].items()}
        edit(state)
        return dict(found, state_dict=state)
    return apply


WEIGHT = 'backbone.layer1.0.conv1.weight'
WRONG = dict(
    half=(half, r'keys missing in the checkpoint'),
    nan=(changed(lambda s: s[WEIGHT].view(-1)[3:4].fill_(float('nan'))),
         f'1 of .* tensors hold inf or NaN, e.g. {WEIGHT}'),
    inf=(changed(lambda s: s[WEIGHT].view(-1)[3:4].fill_(float('inf'))), 'hold inf or NaN'),
    zero=(changed(lambda s: [v.zero_() for v in s.values()]), 'every weight in it is zero'),
    integer=(changed(lambda s: s.update({WEIGHT: s[WEIGHT].to(torch.int8)})), f'{WEIGHT} holds int8, real numbers'),
    complex=(changed(lambda s: s.update({WEIGHT: s[WEIGHT].to(torch.complex64)})), 'holds complex64, real numbers'),
    shape=(changed(lambda s: s.update({WEIGHT: s[WEIGHT][:3]})), 'tensors of another shape'),
    meta=(lambda found: dict(found, meta='trained on Monday'), 'its meta is str; a dict is expected'),
    empty=(lambda found: dict(found, state_dict={}), 'no state_dict in it'))


@pytest.mark.parametrize('case', WRONG)
def test_a_teacher_that_is_no_trained_network_is_refused(case, good, tmp_path):
    source, found = good
    edit, words = WRONG[case]
    source.checkpoint, source.loaded = str(tmp_path / f'{case}.pth'), False
    torch.save(edit(found), source.checkpoint)
    with pytest.raises(CheckpointMismatch, match=words) as error:
        source.load()
    assert f'{case}.pth' in str(error.value) and not source.loaded


def test_half_precision_weights_are_weights(good, tmp_path):
    source, found = good
    source.checkpoint, source.loaded = str(tmp_path / 'half.pth'), False
    state = {k: v.half() if v.is_floating_point() else v for k, v in found['state_dict'].items()}
    torch.save(dict(found, state_dict=state), source.checkpoint)
    source.load()
    assert source.loaded


def test_bytes_that_changed_inside_a_tensor_are_found(good, teacher_checkpoint, tmp_path):
    path = tmp_path / 'changed.pth'
    content = bytearray(Path(teacher_checkpoint[1]).read_bytes())
    with zipfile.ZipFile(teacher_checkpoint[1]) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content[largest.header_offset + 2000] ^= 255
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # PyTorch does not notice
    with pytest.raises(UnsafeCheckpointError, match=r'changed.pth.*CRC-32'):
        load(path)


@pytest.mark.parametrize('kind', ['text', 'zip', 'cut'])
def test_files_that_are_no_checkpoint(kind, good, teacher_checkpoint, tmp_path):
    source, _ = good
    path = tmp_path / f'{kind}.pth'
    if kind == 'text':
        path.write_text('this is not it\n')
    elif kind == 'zip':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('hello.txt', 'hello')
    else:
        path.write_bytes(Path(teacher_checkpoint[1]).read_bytes()[:5000])
    source.checkpoint, source.loaded = str(path), False
    with pytest.raises(UnsafeCheckpointError, match=f'{kind}.pth'):
        source.load()
    source.checkpoint = 'torchvision://resnet0'
    with pytest.raises(CheckpointMismatch, match=r"torchvision://resnet0: cannot be read \(KeyError: 'resnet0'\)"):
        source.load()
    source.checkpoint = str(tmp_path / 'none.pth')
    with pytest.raises(ConfigError, match=r'teacher.checkpoint: there is no file .*none.pth'):
        source.load()


# -- the web
# --------------------------------------------------------------------------------------------------------------
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if 'short' in self.path:
            self.send_response(200)
            self.send_header('Content-Length', '100000')
            self.end_headers()
            self.wfile.write(b'PK too little')
        elif 'silent' in self.path:
            self.server.wait.wait(20)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    (tmp_path / 'served').mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / 'served'))
    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    httpd.wait = threading.Event()
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{httpd.server_address[1]}'
    httpd.wait.set()
    httpd.shutdown()


def test_what_the_web_does_not_deliver_whole_is_not_kept(server, tmp_path, monkeypatch):
    cache = tmp_path / 'cache'
    with pytest.raises(CheckpointMismatch, match=r'short.pth: 13 of 100000 bytes arrived'):
        load_url(f'{server}/short.pth', str(cache))
    with pytest.raises(CheckpointMismatch, match=f'{server}/absent.pth: the server answered 404'):
        load_url(f'{server}/absent.pth', str(cache))
    monkeypatch.setattr(download, 'TIMEOUT', 0.3)
    with pytest.raises(CheckpointMismatch, match=f'{server}/silent.pth: the server said nothing for 0.3 s'):
        load_url(f'{server}/silent.pth', str(cache))
    with pytest.raises(CheckpointMismatch, match=r'http://127.0.0.1:9/x.pth: cannot be reached'):
        load_url('http://127.0.0.1:9/x.pth', str(cache))
    assert not list(cache.glob('*'))
    torch.save(dict(a=torch.ones(3)), tmp_path / 'served' / 'good.pth')
    cache.mkdir(exist_ok=True)
    (cache / 'good.pth').write_bytes(b'PK cut by an earlier version')
    assert torch.equal(load_url(f'{server}/good.pth', str(cache))['a'], torch.ones(3))


# -- load_from
# ------------------------------------------------------------------------------------------------------------
def test_load_from_of_which_nothing_fits_is_refused(run_config, tmp_path):
    other = {f'other.{name}': value for name, value in build(faster_rcnn_cfg()).state_dict().items()}
    torch.save(dict(state_dict=other), tmp_path / 'other.pth')
    with pytest.raises(CheckpointMismatch,
                       match=r'(?s)other.pth: not one tensor of it fits.*other.backbone.conv1.weight'):
        run_tool('train', run_config(faster_rcnn_cfg()), '--work-dir', str(tmp_path / 'run'), '--cfg-options',
                 f'load_from={tmp_path}/other.pth')


def test_load_from_in_part_says_how_much(tmp_path):
    from kd_det.engine.whole_checkpoint_hook import WholeCheckpointHook
    model, said = build(faster_rcnn_cfg()), []
    logger = type('Logger', (), dict(warning=staticmethod(said.append)))
    runner = type('Runner', (), dict(model=model, _resume=False, _load_from='x.pth', logger=logger))()
    state = model.state_dict()
    hook = WholeCheckpointHook()
    hook.after_load_checkpoint(runner, dict(state_dict=state))
    assert not said
    hook.after_load_checkpoint(runner, dict(state_dict=dict(list(state.items())[:10])))
    assert re.search(rf'x.pth: ONLY 10 of {len(state)} tensors fit; the other {len(state) - 10} begin', said[0])
    state['neck.fpn_convs.0.conv.weight'].fill_(float('nan'))
    with pytest.raises(CheckpointMismatch, match=r'load_from x.pth: 1 of .* inf or NaN'):
        hook.after_load_checkpoint(runner, dict(state_dict=state))


# -- the check before training
# --------------------------------------------------------------------------------------------
class FakeLogger:
    def __init__(self):
        self.said = []

    def info(self, text):
        self.said.append(('info', text))

    def warning(self, text):
        self.said.append(('warning', text))


@pytest.fixture
def checked(run_config, teacher_checkpoint, tmp_path):
    """Run the check on a teacher whose detections are the ground truth, or nothing; returns what was said."""
    from mmdet.registry import DATASETS
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    from kd_det.engine.teacher_check_hook import TeacherCheckHook
    cfg = Config.fromfile(run_config(faster_rcnn_cfg()))
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg.val_dataloader.dataset)

    class Oracle:
        def __init__(self, finds):
            self.finds, self.label = finds, None

        def test_step(self, batch):
            torch.rand(1), np.random.rand(), random.random()
            sample = batch['data_samples'][0]
            truth = dataset.get_data_info(sample.img_id)['instances'] if self.finds else []
            if self.label is not None:
                truth = [dict(one, bbox_label=0) for one in truth if one['bbox_label'] == self.label]
            from mmengine.structures import InstanceData
            sample.pred_instances = InstanceData(bboxes=torch.tensor([t['bbox'] for t in truth]).reshape(-1, 4),
                                                 labels=torch.tensor([t['bbox_label'] for t in truth],
                                                                     dtype=torch.long),
                                                 scores=torch.ones(len(truth)))
            return [sample]

    def check(finds=True, loop=True, terms=True, **changes):
        source = FrozenTeacher(teacher_checkpoint[0].to_dict(), teacher_checkpoint[1],
                               **{k: v for k, v in changes.items() if k not in ('classes', 'places')})
        source.model, source.classes, source.loaded = Oracle(finds), changes.get('classes', CLASSES), True
        sources = dict(teacher=source)
        if 'places' in changes:  # the second class is all that it knows
            source.model.label = 1
            sources['e'] = Ensemble(dict(teacher=dict(classes=changes['places'])), sources=sources)
        term = type('T', (), dict(source='teacher'))()
        model = type('M', (torch.nn.Module,), dict(reached=lambda self, name, found: found))()
        model.sources, model.terms = sources, [term] if terms else []
        val_loop = type('L', (), dict(dataloader=type('D', (), dict(dataset=dataset))))
        runner = type('R', (), dict(model=model, logger=FakeLogger(), val_loop=val_loop if loop else None))()
        TeacherCheckHook().before_train(runner)
        return runner.logger.said
    return check


def test_the_check_reports_the_teachers_ap_and_disturbs_no_random_state(checked):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    (level, text), = checked()
    assert level == 'info' and re.search(r'box AP 1.000 on 4 images of the evaluation set, in \d', text)
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    (_, text), = checked(check=2)
    assert 'on 2 images' in text


def test_a_teacher_that_finds_nothing_or_less_than_its_baseline_is_a_loud_warning(checked):
    (level, text), = checked(finds=False)
    assert level == 'warning' and 'box AP 0.000' in text and 'FINDS NEXT TO NOTHING' in text
    (level, _), = checked(baseline=0.9)
    assert level == 'info'
    (level, text), = checked(finds=False, baseline=0.5)
    assert level == 'warning'


def test_the_check_is_left_out_and_says_why(checked):
    assert checked(check=0) == [] and checked(terms=False) == []
    assert 'no evaluation set' in checked(loop=False)[0][1]
    assert 'it knows the classes' in checked(classes=('a', 'b'))[0][1]
    assert '2 times' in checked(scale_factor=2)[0][1]


@pytest.mark.parametrize('place, words', [(1, 'box AP 1.000 of square on 4 images'), (0, 'box AP 0.000 of disc')])
def test_a_teacher_of_a_part_of_the_classes_is_judged_by_these(checked, place, words):
    """It numbers its one class 0; the oracle finds squares alone."""
    (level, text), = checked(classes=('square',), places=[place])
    assert words in text and level == ('info' if place else 'warning')
