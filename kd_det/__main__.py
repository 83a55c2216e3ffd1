"""``python -m kd_det SCRIPT [ARGUMENTS]``: run a script on a prepared stack.

For scripts that import MMDetection's ops before they read a config, such as MMDetection's own ``tools/test.py``, where MMCV
has no compiled ops. (Its ``tools/train.py`` reads the config first, so ``custom_imports`` is enough there.)
"""
import os
import runpy
import sys


def main() -> None:
    if len(sys.argv) < 2 or not os.path.isfile(sys.argv[1]):
        found = sys.argv[1] if len(sys.argv) > 1 else 'nothing'
        sys.exit(f'python -m kd_det SCRIPT [ARGUMENTS]: a Python file is expected, found {found}')
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    main()
