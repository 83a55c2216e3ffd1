"""``kd-det COMMAND``, also ``python -m kd_det COMMAND``; ``python -m kd_det SCRIPT.py`` runs a script on a prepared
stack.

The script form is for programs that import MMDetection's ops before they read a config, such as MMDetection's own
``tools/test.py``, where MMCV has no compiled ops. (Its ``tools/train.py`` reads the config first, so ``custom_imports``
is enough there.)
"""
import os
import runpy
import sys


def run_script(path: str) -> None:
    """Run a Python file as ``python FILE`` would, its arguments behind it."""
    if not os.path.isfile(path):
        sys.exit(f'python -m kd_det: {path!r} does not exist; a Python file or a command of kd-det is expected')
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    runpy.run_path(path, run_name='__main__')


def main() -> int:
    """The command line. ``doctor`` must start where nothing else can be imported, so it does not meet the others."""
    words = sys.argv[1:]
    if words and words[0].endswith('.py'):
        run_script(words[0])
        return 0
    if words[:1] == ['doctor']:
        from .cli import doctor
        from .cli.command import call, guarded
        return guarded('kd-det', call, doctor, words[1:], prog='kd-det doctor')
    from .cli.main import main as commands
    return commands(words)


if __name__ == '__main__':
    sys.exit(main())
