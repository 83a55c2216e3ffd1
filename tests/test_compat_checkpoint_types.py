"""What MMEngine writes beside tensors comes back as it was; what only looks like it is refused."""
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine')

from mmengine.logging import HistoryBuffer

import kd_det.compat.checkpoint as safe


@pytest.mark.parametrize('values', [
    np.arange(6, dtype=np.int32).reshape(2, 3).T, np.array([1.5, -2.], '>f8'), np.array(3.),
    np.array([True, False]), np.array(['red cell', 'é']), np.zeros((2, 0), np.uint8),
    np.float32(0.1), np.int64(-7), np.bool_(True), np.str_('name'), np.float16(2)])
def test_numpy_value_comes_back(values, tmp_path):
    torch.save([{'nested': (values, values)}], tmp_path / 'values.pth')
    for loaded in safe.load(tmp_path / 'values.pth')[0]['nested']:
        assert type(loaded) is type(values)
        assert loaded.dtype.newbyteorder('=') == values.dtype.newbyteorder('=')
        assert loaded.shape == values.shape and np.array_equal(loaded, values)


@pytest.mark.parametrize('writer', ['core', '_core'])
def test_file_of_either_numpy_major_version(writer, tmp_path):
    class Written:
        """Pickles as the given NumPy generation pickles an array."""

        def __reduce__(self):
            _, args, state = np.array([1., 2.]).__reduce__()
            return reconstruct, args, state

    def reconstruct(*args):
        raise AssertionError('never called: it only lends its name')

    reconstruct.__module__ = f'numpy.{writer}.multiarray'
    reconstruct.__qualname__ = reconstruct.__name__ = '_reconstruct'
    module = ModuleType(reconstruct.__module__)
    module._reconstruct = reconstruct
    path = tmp_path / 'array.pth'
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, reconstruct.__module__, module)
        torch.save(Written(), path)
    assert f'numpy.{writer}.multiarray\n_reconstruct'.encode() in path.read_bytes()
    assert np.array_equal(safe.load(path), [1., 2.])


class Call:
    """Pickles as a call of ``function`` followed, if given, by ``__setstate__(state)``."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


RECONSTRUCT = np.zeros(1).__reduce__()[0]
SCALAR = np.float64().__reduce__()[0]
OBJECT_FLAGS = 63  # as of dtype('O'): the contents are pointers
FORGED_STATE = (3, '<', None, None, None, -1, -1, OBJECT_FLAGS)
FORGED = Call(np.dtype, 'f8', False, True, state=FORGED_STATE)


def test_numpy_itself_believes_a_forged_dtype():
    forged = np.dtype('f8', False, True)
    forged.__setstate__(FORGED_STATE)
    assert forged.hasobject  # if this ever fails, NumPy's own functions could be listed instead


def test_forged_dtype_is_made_anew(tmp_path):
    raw = np.array([1., 2.]).tobytes()
    torch.save([Call(RECONSTRUCT, np.ndarray, (0,), b'b', state=(1, (2,), FORGED, False, raw)),
                Call(SCALAR, FORGED, raw[:8])], tmp_path / 'forged.pth')
    values, scalar = safe.load(tmp_path / 'forged.pth')
    assert not values.dtype.hasobject and values.tolist() == [1., 2.]
    assert type(scalar) is np.float64 and scalar == 1.


@pytest.mark.parametrize(('content', 'complaint'), [
    (Call(np.ndarray, (1,), FORGED), 'in a way that NumPy does not write'),
    (Call(RECONSTRUCT, np.ndarray, (0,), b'b', state=(1, (1,), np.dtype('O'), False, [None])),
     'ObjectDType|object'),
    (Call(RECONSTRUCT, np.ndarray, (0,), b'b', state=(1, (9,), np.dtype('f8'), False, b'12345678')),
     'damaged NumPy array'),
    (Call(RECONSTRUCT, np.ndarray, (0,), b'b', state=(1, (-1,), np.dtype('f8'), False, b'123')),
     'damaged NumPy array'),
    (Call(RECONSTRUCT, np.ndarray, (0,), b'b', state=(1,)), 'unknown layout'),
    (Call(SCALAR, np.dtype('f8'), 'text'), 'not bytes'),
    (Call(getattr, HistoryBuffer, '__init__'), "attribute '__init__'"),
    (Call(getattr, torch.Size, 'count'), "attribute 'count'"),
    (np.array([None]), 'ObjectDType|object'),
    (np.zeros(2, [('x', 'f8')]), 'void|Void'),
    (np.datetime64('2020-01-01'), 'DateTime64|datetime'),
    (Path('somewhere'), 'PosixPath|PurePosixPath|WindowsPath'),
])
def test_what_is_not_data_is_refused(content, complaint, tmp_path):
    torch.save(content, tmp_path / 'forged.pth')
    with pytest.raises(safe.UnsafeCheckpointError, match=complaint) as caught:
        safe.load(tmp_path / 'forged.pth')
    assert 'add_safe_globals' not in str(caught.value)


def test_file_cannot_change_what_mean_means(tmp_path):
    history = HistoryBuffer([1., 3.], [1, 1])
    history._statistics_methods = {'mean': HistoryBuffer.max}
    torch.save(history, tmp_path / 'history.pth')
    safe.load(tmp_path / 'history.pth')
    assert HistoryBuffer([1., 3.], [1, 1]).statistics('mean') == 2.


def test_nested_references_take_no_exponential_time(tmp_path):
    listed, paired = [np.zeros(1)], (np.zeros(1),)
    for _ in range(60):
        listed, paired = [listed, listed], (paired, paired)
    loop = []
    loop.append(loop)
    torch.save([listed, paired, loop], tmp_path / 'nested.pth')
    listed, paired, loop = safe.load(tmp_path / 'nested.pth')
    assert listed[0] is listed[1] and paired[0] is paired[1] and loop[0] is loop


def test_works_after_somebody_cleared_the_list(tmp_path):
    torch.save(np.float64(1), tmp_path / 'scalar.pth')
    torch.serialization.clear_safe_globals()
    assert safe.load(tmp_path / 'scalar.pth') == 1.


def test_mmcv_1_checkpoint(tmp_path):
    """The fields of the model zoo's older files."""
    meta = {'env_info': 'sys.platform: linux', 'config': 'model = dict()', 'seed': 0, 'epoch': 12,
            'exp_name': 'a.py', 'mmdet_version': '2.18.1+db256a1', 'CLASSES': ('person', 'car'),
            'time': 'Tue Nov 22', 'PALETTE': [(1, 2, 3)], 'iter': 7330,
            'hook_msgs': {'best_score': np.float64(0.4), 'best_ckpt': 'best.pth'}}
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.save({'meta': meta, 'state_dict': model.state_dict(),
                'optimizer': optimizer.state_dict()}, tmp_path / 'old.pth')
    assert safe.load(tmp_path / 'old.pth')['meta'] == meta


def test_statistics_survive_loading_in_a_process_that_never_made_a_history(tmp_path):
    """A resumed rank whose scalars all come from the checkpoint."""
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    torch.save(dict(message_hub=dict(log_scalars=dict(loss=buffer))), tmp_path / 'c.pth')
    script = ('import kd_det\nfrom kd_det.compat.checkpoint import load\n'
              'from mmengine.logging import HistoryBuffer\nHistoryBuffer._statistics_methods.clear()\n'
              f'buffer = load({str(tmp_path / "c.pth")!r})["message_hub"]["log_scalars"]["loss"]\n'
              'assert buffer.statistics("mean", 2) == 2, buffer\n')
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
