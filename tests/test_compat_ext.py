"""``mmcv._ext`` is served where it is missing, and only there."""
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip('mmcv')

# stands in for ``import kd_det``, so that these tests see compat.ext alone
ALONE = '''
import importlib.util, sys, types
def alone():
    root = importlib.util.find_spec('kd_det').submodule_search_locations[0]
    for name, path in (('kd_det', root), ('kd_det.compat', root + '/compat')):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [path]
    from kd_det.compat import ext
    return ext
ext = alone()
'''
FAKE_MMCV = {'__init__.py': '', 'ops.py': 'from . import _ext'}


def run(code: str, *paths) -> str:
    """Run in a fresh interpreter with ``paths`` first on sys.path; its standard output."""
    prefix = f'import sys\nsys.path[:0] = {[str(p) for p in paths]!r}\n'
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c',
                           prefix + ALONE + textwrap.dedent(code)],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_mmcv(root, **extra: str):
    package = root / 'mmcv'
    package.mkdir()
    for name, text in {**FAKE_MMCV, **extra}.items():
        (package / name.replace('__py', '.py')).write_text(text)
    return root


def test_served_module_has_a_real_spec_and_is_found_by_every_probe(tmp_path):
    make_mmcv(tmp_path)
    out = run('''
        import importlib.util, pkgutil
        assert ext.backend() == 'none'
        assert ext.install() == 'torchvision' == ext.backend()
        before = importlib.util.find_spec('mmcv._ext')  # not imported yet
        assert before.name == 'mmcv._ext' and before.loader is not None
        assert 'mmcv._ext' not in sys.modules
        import mmcv._ext
        module = sys.modules['mmcv._ext']
        assert mmcv._ext is module
        assert module.__spec__.name == 'mmcv._ext' and module.__spec__.loader is not None
        assert importlib.util.find_spec('mmcv._ext') is module.__spec__
        assert not hasattr(module, '__path__') and not hasattr(module, '_anything')
        if hasattr(pkgutil, 'find_loader'):  # gone in Python 3.14
            assert pkgutil.find_loader('mmcv._ext') is not None
        count = len(sys.meta_path)
        assert ext.install() == 'torchvision' and len(sys.meta_path) == count
        print(ext.backend())
    ''', tmp_path)
    assert out == 'torchvision'


def test_compiled_extension_is_never_shadowed(tmp_path):
    make_mmcv(tmp_path, _ext__py='WHO = "compiled"')
    out = run('''
        count = len(sys.meta_path)
        assert ext.install() == 'compiled' == ext.backend()
        assert len(sys.meta_path) == count
        import mmcv._ext
        print(mmcv._ext.WHO, ext.install(), ext.backend())
    ''', tmp_path)
    assert out == 'compiled compiled compiled'


def test_compiled_extension_wins_even_if_it_appears_after_install(tmp_path):
    make_mmcv(tmp_path)
    out = run('''
        import importlib, pathlib
        ext.install()
        pathlib.Path(sys.path[0], 'mmcv', '_ext.py').write_text('WHO = "compiled"')
        importlib.invalidate_caches()
        import mmcv._ext
        print(mmcv._ext.WHO, ext.backend())
    ''', tmp_path)
    assert out == 'compiled compiled'


def test_already_imported_extension_stays(tmp_path):
    make_mmcv(tmp_path)
    out = run('''
        import types
        other = sys.modules['mmcv._ext'] = types.ModuleType('mmcv._ext')
        assert ext.install() == 'compiled'
        print(sys.modules['mmcv._ext'] is other)
    ''', tmp_path)
    assert out == 'True'


def test_missing_mmcv_is_reported_without_an_error():
    out = run('''
        import importlib.util
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name == 'mmcv' else real(name, *a)
        print(ext.install(), ext.backend())
    ''')
    assert out == 'missing missing'


def test_unserved_op_raises_when_called_and_names_itself(tmp_path):
    make_mmcv(tmp_path)
    out = run('''
        ext.install()
        import mmcv._ext
        op = mmcv._ext.ball_query_forward
        assert hasattr(mmcv._ext, 'ball_query_forward')
        try:
            op(1, max_radius=2)
        except ext.OpNotServedError as e:
            assert isinstance(e, NotImplementedError) and e.op == 'ball_query_forward'
            print(e)
    ''', tmp_path)
    assert "'ball_query_forward'" in out and 'mim install' in out and 'onedl-mmcv' in out


def test_mmcv_ops_and_mmdet_import_and_an_unserved_layer_raises_in_forward():
    pytest.importorskip('mmdet')
    out = run('''
        backend = ext.install()
        import pkgutil, torch
        import mmcv.ops
        import mmdet.models
        from mmcv.utils.env import collect_env
        from mmcv.utils.ext_loader import check_ops_exist
        if hasattr(pkgutil, 'find_loader'):  # gone in Python 3.14
            assert check_ops_exist() is True
        layer = mmcv.ops.BorderAlign(pool_size=2)
        if backend == 'torchvision':
            assert collect_env()['MMCV Compiler'].startswith('none (ops served by kd_det')
            try:
                layer(torch.zeros(1, 4, 3, 3), torch.zeros(1, 9, 4))
            except ext.OpNotServedError as e:
                assert e.op == 'border_align_forward'
            else:
                raise AssertionError('border_align ran')
        print(backend)
    ''')
    assert out in ('torchvision', 'compiled')


def test_every_op_that_mmdet_needs_is_served():
    """Wrappers that MMDetection 3 imports from mmcv.ops, and what each asks of the extension."""
    from kd_det.compat.ops import SERVED
    needed = {
        'batched_nms': ['nms', 'softnms'], 'nms_match': ['nms_match'],
        'RoIAlign': ['roi_align_forward', 'roi_align_backward'],
        'RoIPool': ['roi_pool_forward', 'roi_pool_backward'],
        'DeformConv2d': ['deform_conv_forward', 'deform_conv_backward_input',
                         'deform_conv_backward_parameters'],
        'ModulatedDeformConv2d': ['modulated_deform_conv_forward',
                                  'modulated_deform_conv_backward'],
        'MaskedConv2d': ['masked_im2col_forward', 'masked_col2im_forward'],
        'MultiScaleDeformableAttention': ['ms_deform_attn_forward', 'ms_deform_attn_backward'],
        'CARAFEPack': ['carafe_forward', 'carafe_backward'],
        'sigmoid_focal_loss': ['sigmoid_focal_loss_forward', 'sigmoid_focal_loss_backward'],
        'DeformRoIPoolPack': ['deform_roi_pool_forward', 'deform_roi_pool_backward'],
    }
    missing = {op for ops in needed.values() for op in ops} - set(SERVED)
    assert not missing
