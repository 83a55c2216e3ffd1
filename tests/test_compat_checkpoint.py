"""Checkpoints load as data on every MMEngine route, and nothing in them runs."""
import contextlib
import functools
import http.server
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine')

import mmengine.fileio.io as fileio
import mmengine.utils.dl_utils
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.runner import checkpoint as routes

import kd_det.compat.checkpoint as safe

safe.install()


class Toy(BaseModel):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return {'loss': self.layer(torch.stack(inputs)).square().mean()}


class BestScore(Hook):
    """Leaves a NumPy scalar and an empty array in the message hub, as evaluation hooks do."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.message_hub.update_info('best_score', np.float64(0.25))
        runner.message_hub.update_info('empty', np.zeros((0, 4), np.float32))


def make_runner(work_dir, max_iters, scheduler, **kwargs):
    dataset = [{'inputs': torch.tensor([float(i), 1.])} for i in range(4)]
    loader = {'dataset': dataset, 'batch_size': 2, 'num_workers': 0,
              'sampler': {'type': 'DefaultSampler', 'shuffle': False}}
    torch.manual_seed(0)
    return Runner(
        Toy(), str(work_dir), train_dataloader=loader,
        train_cfg={'by_epoch': False, 'max_iters': max_iters},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}},
        param_scheduler=scheduler, custom_hooks=[BestScore()], default_scope='mmengine',
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'interval': 1, 'by_epoch': False},
                       'logger': {'type': 'LoggerHook', 'interval': 1}},
        experiment_name=f'run_{Path(work_dir).name}_{max_iters}', log_level='ERROR', **kwargs)


SCHEDULERS = {
    'multi_step': [{'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 2},
                   {'type': 'MultiStepLR', 'milestones': [2], 'by_epoch': False}],
    'one_cycle': [{'type': 'OneCycleLR', 'eta_max': 0.2, 'total_steps': 4, 'by_epoch': False}],
    'one_cycle_linear': [{'type': 'OneCycleLR', 'eta_max': 0.2, 'total_steps': 4,
                          'by_epoch': False, 'anneal_strategy': 'linear'}],
}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A folder in which a runner trained two iterations."""
    folder = tmp_path_factory.mktemp('run')
    make_runner(folder, 2, SCHEDULERS['multi_step']).train()
    return folder


class Evil:
    """Creates a file when unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, 'w')


@pytest.fixture
def evil(tmp_path):
    """(checkpoint that runs code, file that the code would create)."""
    path, marker = tmp_path / 'evil.pth', tmp_path / 'code-was-run'
    torch.save({'state_dict': {'layer.weight': torch.zeros(1, 2)}, 'meta': Evil(marker)}, path)
    return path, marker


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves tmp_path over HTTP on this machine; downloads go to tmp_path/torch_home."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch_home'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'mmengine_home'))
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{httpd.server_port}'
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def storage(monkeypatch):
    """Storage backends on the local disk: ``petrel`` for s3:// addresses, and ``pavi``."""

    class Bucket(LocalBackend):
        def get(self, filepath):
            return Path(str(filepath).split('s3:/')[1]).read_bytes()

    class Model:
        def __init__(self, path):
            self.path, self.name = Path(path), 'model.pth'

        def download(self, target):
            Path(target).write_bytes(self.path.read_bytes())

    monkeypatch.setitem(fileio.backends, 'petrel', Bucket)
    pavi = ModuleType('pavi')
    pavi.modelcloud = SimpleNamespace(get=Model)
    monkeypatch.setitem(sys.modules, 'pavi', pavi)


@pytest.fixture
def address(server, storage, tmp_path, monkeypatch):
    """Maps a file under tmp_path and the name of a route to the address MMEngine knows it by."""

    def of(path, route):
        url = f'{server}/{path.name}'
        home = tmp_path / 'mmengine_home'
        home.mkdir(exist_ok=True)
        shutil.copy(path, home)
        monkeypatch.setattr(routes, 'get_torchvision_models', lambda: {'net': url})
        monkeypatch.setattr(routes, 'get_mmcls_models', lambda: {'net': url})
        monkeypatch.setattr(routes, 'get_external_models',
                            lambda: {'net': url, 'file': path.name})
        return {'local': str(path), 'http': url, 's3': f's3:/{path}',
                'cluster': f'cluster:s3:/{path}', 'pavi': f'pavi://{path}'}.get(route, route)

    return of


ROUTES = ['local', 'http', 's3', 'cluster', 'pavi', 'torchvision://net', 'modelzoo://net',
          'mmcls://net', 'open-mmlab://net', 'openmmlab://net', 'open-mmlab://file']


@pytest.mark.parametrize('route', ROUTES)
def test_route_loads_data(route, address, tmp_path):
    weight = torch.tensor([[1., 2.]])
    path = tmp_path / 'good.pth'
    torch.save({'state_dict': {'backbone.weight': weight}, 'meta': {'best': np.float64(0.5)}}, path)
    loaded = CheckpointLoader.load_checkpoint(address(path, route), 'cpu', logger='silent')
    name = 'weight' if route.startswith('mmcls') else 'backbone.weight'
    assert torch.equal(loaded['state_dict'][name], weight)


@pytest.mark.parametrize('forced', [False, True])
@pytest.mark.parametrize('route', ROUTES)
def test_route_refuses_code(route, forced, address, evil, monkeypatch):
    path, marker = evil
    if forced:  # the usual cure found on the web must not open the door here
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(safe.UnsafeCheckpointError, match='of its code was run') as caught:
        CheckpointLoader.load_checkpoint(address(path, route), 'cpu', logger='silent')
    assert not marker.exists()
    evil_global = f'{open.__module__}.open'  # io, or _io since Python 3.12
    assert caught.value.unsafe_global == evil_global
    message = str(caught.value)
    assert f"'{evil_global}'" in message
    assert path.name in message or 'model.pth' in message  # pavi: the name it was downloaded to
    assert 'add_safe_globals' not in message  # PyTorch's advice opens the door


def test_evil_file_is_evil(evil):
    path, marker = evil
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize('route', ['local', 'http'])
def test_pretrained_init_cfg_refuses_code(route, address, evil):
    path, marker = evil
    model = Toy(init_cfg={'type': 'Pretrained', 'checkpoint': address(path, route)})
    with pytest.raises(safe.UnsafeCheckpointError, match=path.name):
        model.init_weights()
    assert not marker.exists()


@pytest.mark.parametrize('resume', [True, False])
@pytest.mark.parametrize('route', ['local', 'http'])
def test_runner_refuses_code(route, resume, address, evil, tmp_path):
    path, marker = evil
    runner = make_runner(tmp_path / 'work', 3, SCHEDULERS['multi_step'],
                         load_from=address(path, route), resume=resume)
    with pytest.raises(safe.UnsafeCheckpointError, match=path.name):
        runner.train()
    assert not marker.exists()


@pytest.mark.parametrize('name', ['load_checkpoint', '_load_checkpoint_with_prefix', 'load_url'])
def test_function_refuses_code(name, server, evil):
    path, marker = evil
    url = f'{server}/{path.name}'
    call = {'load_checkpoint': lambda: load_checkpoint(Toy(), url),
            '_load_checkpoint_with_prefix':
                lambda: routes._load_checkpoint_with_prefix('layer', str(path)),
            'load_url': lambda: mmengine.utils.dl_utils.load_url(url)}[name]
    with pytest.raises(safe.UnsafeCheckpointError, match=path.name):
        call()
    assert not marker.exists()


@pytest.mark.parametrize('schedule', SCHEDULERS)
def test_run_stopped_and_resumed_equals_run_in_one_go(schedule, tmp_path):
    whole = make_runner(tmp_path / 'whole', 4, SCHEDULERS[schedule])
    whole.train()
    resumed = make_runner(tmp_path / 'resumed', 4, SCHEDULERS[schedule], resume=True,
                          load_from=str(tmp_path / 'whole' / 'iter_2.pth'))
    resumed.train()
    assert resumed.iter == 4
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
    buffers = whole.optim_wrapper.state_dict()['state'], resumed.optim_wrapper.state_dict()['state']
    assert torch.equal(*(buffer[0]['momentum_buffer'] for buffer in buffers))
    history = [runner.message_hub.get_scalar('train/lr') for runner in (whole, resumed)]
    assert np.array_equal(*(record.data[0] for record in history))
    assert len(history[0].data[0]) == 4  # so the first two came out of the checkpoint


def test_runner_checkpoint_comes_back_as_plain_types(run):
    record = safe.load(run / 'iter_2.pth')['message_hub']
    history = record['log_scalars']['train/loss']
    assert type(history) is HistoryBuffer
    assert history.mean() == pytest.approx(history.data[0].mean())
    assert [type(values) for values in history.data] == [np.ndarray] * 2
    best, empty = record['runtime_info']['best_score'], record['runtime_info']['empty']
    assert type(best) is np.float64 and best == 0.25
    assert type(empty) is np.ndarray and empty.shape == (0, 4) and empty.dtype == np.float32


@pytest.mark.parametrize('content', [
    b'<html>404</html>', b'', pickle.dumps({'a': 1}, 4), b'PK\x03\x04 half a zip file'],
    ids=['web page', 'empty', 'protocol 4', 'cut off'])
def test_file_that_is_no_checkpoint(content, tmp_path):
    (tmp_path / 'page.pth').write_bytes(content)
    with pytest.raises(safe.UnsafeCheckpointError, match=r'page\.pth.*(damaged|torch\.save)'):
        safe.load(tmp_path / 'page.pth')


def test_download_cut_off(tmp_path):
    torch.save({'a': torch.ones(1000)}, tmp_path / 'whole.pth')
    (tmp_path / 'half.pth').write_bytes((tmp_path / 'whole.pth').read_bytes()[:2000])
    with pytest.raises(safe.UnsafeCheckpointError, match=r'half\.pth.*cut off'):
        safe.load(tmp_path / 'half.pth')


@pytest.mark.parametrize('version', ['2.4.1', '2.5.1+cu124'])
def test_torch_whose_weights_only_runs_code_is_refused(version, tmp_path, monkeypatch):
    torch.save({}, tmp_path / 'a.pth')
    monkeypatch.setattr(torch, '__version__', version)
    with pytest.raises(RuntimeError, match='CVE-2025-32434'):
        safe.load(tmp_path / 'a.pth')


def test_torchscript_archive_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(tmp_path / 'script.pth'))
    with pytest.raises(safe.UnsafeCheckpointError, match='TorchScript'):
        safe.load(tmp_path / 'script.pth')


def test_legacy_format(tmp_path):
    path, marker = tmp_path / 'legacy.pth', tmp_path / 'code-was-run'
    torch.save({'best': np.float64(2)}, path, _use_new_zipfile_serialization=False)
    assert safe.load(path) == {'best': 2.}
    torch.save(Evil(marker), path, _use_new_zipfile_serialization=False)
    with pytest.raises(safe.UnsafeCheckpointError, match=r'io\.open'):
        safe.load(path)
    assert not marker.exists()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.pth'):
        safe.load(tmp_path / 'absent.pth')


def test_error_survives_pickling():
    error = safe.UnsafeCheckpointError('a.pth', 'os.system', 'it asks')
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.unsafe_global == 'os.system'


def test_install_twice_changes_nothing():
    before = routes.torch, routes.load_url, CheckpointLoader.load_checkpoint.__func__
    safe.install()
    after = routes.torch, routes.load_url, CheckpointLoader.load_checkpoint.__func__
    assert all(one is other for one, other in zip(before, after)) and safe.is_installed()
    assert routes.torch.optim is torch.optim and routes.torch.save is torch.save


SUBPROCESS = """
import sys, torch, torch.utils.model_zoo
from types import ModuleType
# the module alone, without what else `import kd_det` does
for name in ('kd_det', 'kd_det.compat'):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [name.replace('.', '/')]
{before}
load, hub, zoo = torch.load, torch.hub.load_state_dict_from_url, torch.utils.model_zoo.load_url
import kd_det.compat.checkpoint as safe
safe.install()
assert torch.load is load and torch.hub.load_state_dict_from_url is hub
assert torch.utils.model_zoo.load_url is zoo
{after}
"""


def run_python(before, after):
    return subprocess.run(
        [sys.executable, '-c', SUBPROCESS.format(before=before, after=after)],
        capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=120)


def test_torch_outside_mmengine_is_unchanged(tmp_path):
    torch.save(Evil(tmp_path / 'ran'), tmp_path / 'evil.pth')
    done = run_python('', f"""
try:
    torch.load({str(tmp_path / 'evil.pth')!r}, weights_only=True)
    raise SystemExit('loaded')
except safe.pickle.UnpicklingError as error:
    assert not isinstance(error, safe.UnsafeCheckpointError)
torch.load({str(tmp_path / 'evil.pth')!r}, weights_only=False)
""")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'ran').exists()  # whoever says weights_only=False outside gets it


def test_without_mmengine_nothing_happens(tmp_path):
    torch.save({'a': torch.ones(1)}, tmp_path / 'a.pth')
    done = run_python("""
class Absent:
    def find_spec(self, name, *args):
        if name.split('.')[0] == 'mmengine':
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Absent())
""", f"""
assert not safe.is_installed()
assert safe.load({str(tmp_path / 'a.pth')!r})['a'] == 1
""")
    assert done.returncode == 0, done.stderr
