"""What is loaded is data: files made to run code are refused on every route, and none is run, unpickled or removed."""
import ast
import functools
import http.server
import json
import pickle
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import build, faster_rcnn_cfg
from dense_detectors import dense_cfg
from mmengine.hooks import CheckpointHook
from mmengine.runner import CheckpointLoader

import kd_det
from kd_det.compat.checkpoint import UnsafeCheckpointError, load
from kd_det.detectors.distiller import Distiller
from kd_det.engine.checkpoint_files import SafeCheckpointHook, latest_whole
from kd_det.engine.colad_hook import CoLADHook
from kd_det.engine.resume_check import differences
from kd_det.engine.training import keep_seed
from kd_det.errors import CheckpointMismatch, StudyError
from kd_det.sources import FrozenTeacher
from kd_det.study.records import read_record
from kd_det.weights import load_deployed, read_state_dict


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, 'w')


def torch_zip(path, evil, good):
    torch.save(dict(good, extra=evil), path)


def in_kd_det(path, evil, good):
    torch.save(dict(good, kd_det=dict(terms=dict(adapter=evil))), path)


def in_optimizer(path, evil, good):
    torch.save(dict(good, optimizer=dict(state={0: evil}, param_groups=[])), path)


def legacy(path, evil, good):
    torch.save(dict(good, extra=evil), path, _use_new_zipfile_serialization=False)


def plain_pickle(path, evil, good):
    path.write_bytes(pickle.dumps(dict(state_dict=evil)))


def zip_with_a_pickle(path, evil, good):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', pickle.dumps(evil))
        archive.writestr('archive/version', '3')


def compressed(path, evil, good):
    torch.save(dict(good, extra=evil), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


FORMS = [torch_zip, in_kd_det, in_optimizer, legacy, plain_pickle, zip_with_a_pickle, compressed]


@pytest.fixture(scope='module')
def networks(teacher_checkpoint):
    """A frozen teacher, a CoLAD pair, a plain detector and what a checkpoint of the teacher holds."""
    teacher = FrozenTeacher(teacher_checkpoint[0].to_dict(), teacher_checkpoint[1])
    peer = dense_cfg('paa')
    peer.update(student_type=peer.type, type='CoLAD', peer=dict(config=dense_cfg('paa', width=16).to_dict()))
    return teacher, build(peer), build(faster_rcnn_cfg()), load(teacher_checkpoint[1])


def by_teacher(path, networks):
    teacher = networks[0]
    teacher.checkpoint, teacher.loaded = path, False
    teacher.load()


def by_peer(path, networks):
    peer = networks[1].sources['peer']
    peer.checkpoint, peer.loaded = path, False
    peer.init_weights()


def by_evaluation(path, networks):
    load_deployed(networks[2], path)


def by_second_network(path, networks):
    read_state_dict(path, 'second')


def by_pretrained_backbone(path, networks):
    from mmengine.model import PretrainedInit
    PretrainedInit(path)(networks[2].backbone)


def by_runner(path, networks):
    """What ``load_from`` and ``resume`` of a runner end in."""
    CheckpointLoader.load_checkpoint(path, map_location='cpu')


def by_seed_of_a_resumed_run(path, networks):
    from mmengine.config import Config
    keep_seed(Config(dict(resume=True, load_from=path)))


ROUTES = [by_teacher, by_peer, by_evaluation, by_second_network, by_pretrained_backbone, by_runner,
          by_seed_of_a_resumed_run]


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass
    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield f'http://127.0.0.1:{httpd.server_port}'
    httpd.shutdown()


@pytest.mark.parametrize('form', FORMS, ids=lambda form: form.__name__)
def test_no_route_runs_what_a_file_says(form, networks, tmp_path, served):
    path, marker = tmp_path / f'{form.__name__}.pth', tmp_path / 'code-was-run'
    form(path, Evil(marker), networks[3])
    for address in (str(path), f'{served}/{path.name}'):
        for route in ROUTES:
            if '://' in address and route is by_seed_of_a_resumed_run:
                continue  # reads local files alone
            with pytest.raises(UnsafeCheckpointError, match=path.name):
                route(address, networks)
            assert not marker.exists(), route.__name__
    with pytest.raises(CheckpointMismatch, match='no checkpoint to resume from'):
        latest_whole(str(tmp_path))
    assert not marker.exists()
    if form not in (zip_with_a_pickle, compressed):  # PyTorch itself cannot read these two
        torch.load(path, weights_only=False) if form is not plain_pickle else pickle.loads(path.read_bytes())
        assert marker.exists(), 'the file is harmless, so that it shows nothing'


def test_text_that_is_a_config_is_never_run(tmp_path, networks):
    """Pure data for PyTorch; MMEngine's resume executes the text in meta['config']."""
    marker = tmp_path / 'code-was-run'
    text = f"open({str(marker)!r}, 'w').close()\nmodel = dict(type='CoLAD')\n"
    checkpoint = dict(networks[3], meta=dict(config=text, cfg=text, epoch=1, iter=1),
                      message_hub=dict(runtime_info=dict(cfg=text)))
    torch.save(checkpoint, tmp_path / 'text.pth')
    found = CheckpointLoader.load_checkpoint(str(tmp_path / 'text.pth'), map_location='cpu')
    assert 'config' not in found['meta'] and found['meta']['cfg'] == text
    differences(text, 'model = dict(type="CoLAD")')
    by_seed_of_a_resumed_run(str(tmp_path / 'text.pth'), networks)
    assert not marker.exists()


def test_mmengine_would_run_it(tmp_path):
    """The route that is closed is there: ``Runner.resume`` reads the text so."""
    from mmengine.config import Config
    from mmengine.runner import Runner
    assert {'fromstring', 'config'} <= {*Runner.resume.__code__.co_names, *Runner.resume.__code__.co_consts}
    marker = tmp_path / 'code-was-run'
    Config.fromstring(f"open({str(marker)!r}, 'w').close()\n", '.py')
    assert marker.exists()


# -- paths in checkpoints
def test_a_resumed_checkpoint_names_no_other_file_for_removal(tmp_path, monkeypatch):
    run, outside = tmp_path / 'run', tmp_path / 'thesis.tex'
    run.mkdir()
    outside.write_text('years of work')
    (run / 'best_old.pth').write_text('the old best')
    (run / 'notes.txt').write_text('mine')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'kept').write_text('')

    def forged(self, runner, metrics):
        for path in (outside, run / 'notes.txt', run / 'best_old.pth', run / '..' / 'thesis.tex'):
            self.file_backend.remove(str(path))
        self.file_backend.rmtree(str(tmp_path / 'folder'))
    monkeypatch.setattr(CheckpointHook, '_save_best_checkpoint', forged)
    hook = SafeCheckpointHook(save_best='x', rule='greater')
    from mmengine.fileio import get_file_backend
    hook.file_backend, hook.out_dir = get_file_backend(str(run)), str(run)
    hook._save_best_checkpoint(type('R', (), dict(hooks=[]))(), {})
    assert sorted(p.name for p in run.iterdir()) == ['notes.txt'] and outside.exists()
    assert (tmp_path / 'folder' / 'kept').exists()


def test_a_colad_checkpoint_names_no_other_file_for_removal(tmp_path, networks):
    first, outside = tmp_path / 'epoch_1.pth', tmp_path / 'thesis.tex'
    for path in (first, outside, tmp_path / 'epoch_1_peer.pth'):
        path.write_text('')
    hook, model = CoLADHook(), networks[1]
    state = dict(Distiller.distill_state(model), written={
        str(outside): str(first), str(tmp_path / 'epoch_1_peer.pth'): str(first)})
    hook._restore(type('R', (), dict(model=model))(), state)
    first.unlink()
    hook.checkpoints_removed()
    assert outside.exists() and not (tmp_path / 'epoch_1_peer.pth').exists()


# -- the rest of what is read
def test_records_are_json_and_nothing_in_them_runs(tmp_path):
    marker = tmp_path / 'code-was-run'
    evil = f"__import__('os').system('touch {marker}')"
    record = dict(seed=evil, config_sha256=evil, accuracy=dict(AP=evil), __reduce__=evil, __class__=evil)
    (tmp_path / 'one.json').write_text(json.dumps(record))
    assert read_record(str(tmp_path / 'one.json')) == record
    (tmp_path / 'two.json').write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(StudyError, match=r'two\.json: not a record'):
        read_record(str(tmp_path / 'two.json'))
    assert not marker.exists()


FORBIDDEN = {'pickle': {'load', 'loads', 'Unpickler'}, 'torch': {'load'}, 'np': {'load'}, 'numpy': {'load'},
             'yaml': {'load', 'unsafe_load', 'full_load'}, 'marshal': {'load', 'loads'}, 'joblib': {'load'},
             'shelve': {'open'}, 'fileio': {'load'}, 'mmengine': {'load'}, 'os': {'system', 'popen'}}


def test_nothing_in_the_package_unpickles_or_evaluates():
    """``torch.load`` is in compat/checkpoint.py alone, with weights_only=True; ``np.load`` says allow_pickle=False."""
    root, found = Path(kd_det.__file__).parent, []
    for path in sorted(root.rglob('*.py')):
        if '.mim' in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding='utf-8'))
        harmless = {id(call.func) for call in ast.walk(tree) if isinstance(call, ast.Call) and any(
            word.arg == 'allow_pickle' and getattr(word.value, 'value', True) is False for word in call.keywords)}
        for node in ast.walk(tree):
            name = None
            if id(node) in harmless:
                continue
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = node.attr if node.attr in FORBIDDEN.get(node.value.id, ()) else None
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id if node.func.id in ('eval', 'exec', '__import__') else None
            elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN:
                name = next((alias.name for alias in node.names if alias.name in FORBIDDEN[node.module]), None)
            if isinstance(node, ast.keyword) and node.arg == 'shell':
                name = 'shell='
            if name:
                found.append(f'{path.relative_to(root)}: {name}')
    assert set(found) == {'compat/checkpoint.py: load'}, found
