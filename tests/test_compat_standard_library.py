"""The stack on Pythons that have dropped what it uses."""
import pkgutil
import subprocess
import sys

import pytest

from kd_det.compat import standard_library

WITHOUT = '''
import pkgutil, sys, warnings
if hasattr(pkgutil, 'find_loader'):
    del pkgutil.find_loader
import kd_det
from mmcv.ops import nms
from mmengine.hub import get_config
get_config('mmdet::_base_/models/faster-rcnn_r50_fpn.py')
print('runs')
'''


def test_the_stack_imports_without_find_loader_and_says_nothing_of_pkg_resources():
    done = subprocess.run([sys.executable, '-c', WITHOUT], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith('runs'), done.stderr
    assert 'pkg_resources' not in done.stderr


@pytest.mark.parametrize('name', ['json', 'json.decoder', 'no_such_module_at_all', 'no_such.module'])
@pytest.mark.skipif(sys.version_info >= (3, 14), reason='Python 3.14 has no find_loader to compare with')
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_find_loader_answers_as_the_old_one(name):
    try:
        old = pkgutil.find_loader(name)
    except ImportError:  # for a package that is not there
        old = None
    assert standard_library.find_loader(name) is old or type(standard_library.find_loader(name)) is type(old)
