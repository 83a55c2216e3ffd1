"""``python -m kd_det.doctor [--json]``: what is installed, what is broken, and what mends it.

Exit code 0 means that a detector really trained here, one step on the CPU and on a GPU if there is one, and that
nothing else is broken. Every check stands alone: whatever is missing or raises becomes a line of the report.
"""
from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import platform
import re
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any


@dataclass(frozen=True)
class Package:
    """A package the detectors need: how it is imported, found and installed."""

    module: str
    distributions: tuple[str, ...]  # under which it may be installed
    requirement: str                # what pip is given where it is missing
    fork: str = ''                  # the same beside the onedl-* forks
    needs: tuple[str, ...] = ()


PACKAGES = (
    Package('numpy', ('numpy',), 'numpy'),
    Package('torch', ('torch',), 'torch>=2.6'),
    Package('torchvision', ('torchvision',), 'torchvision>=0.21', needs=('torch',)),
    Package('cv2', ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python',
                    'opencv-contrib-python-headless'), 'opencv-python', needs=('numpy',)),
    Package('pycocotools.mask', ('pycocotools',), 'pycocotools', needs=('numpy',)),
    Package('mmengine', ('mmengine', 'mmengine-lite', 'onedl-mmengine'), 'mmengine==0.10.7',
            'onedl-mmengine', ('torch', 'cv2')),
    Package('mmcv', ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv', 'onedl-mmcv-lite'),
            'mmcv-lite==2.1.0', 'onedl-mmcv', ('mmengine',)),
    Package('mmdet', ('mmdet', 'onedl-mmdetection'), 'mmdet==3.3.0', 'onedl-mmdetection',
            ('mmcv', 'torchvision', 'pycocotools.mask')),
)
# import names whose distribution is called something else
DISTRIBUTIONS = {'cv2': 'opencv-python', 'yaml': 'pyyaml', 'PIL': 'pillow',
                 'pycocotools': 'pycocotools', 'pkg_resources': 'setuptools<81',
                 'imgaug': 'imaug'}


@dataclass(frozen=True)
class Problem:
    """Something broken, and the command that mends it (empty where none is known)."""

    what: str
    mend: str = ''


@dataclass
class Report:
    """All that was found."""

    versions: dict[str, str] = field(default_factory=dict)
    ops: str = 'not known'
    safe_checkpoints: bool = False
    gpu: str = 'none (CPU)'
    cpu: str = ''
    training: dict[str, str] = field(default_factory=dict)
    can_train: bool = False
    problems: list[Problem] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # packages that cannot be imported


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """Version of each distribution of ``names`` that is installed."""
    found = {}
    for name in names:
        with contextlib.suppress(Exception):  # also damaged metadata counts as absent
            found[name] = metadata.version(name)
    return found


def pip_install(*requirements: str) -> str:
    return 'pip install ' + ' '.join(f'"{requirement}"' for requirement in requirements)


def matching_torchvision() -> str:
    """The torchvision release made for the installed torch: 0.(n + 15) for torch 2.n."""
    release = re.match(r'2\.(\d+)', installed(('torch',)).get('torch', ''))
    return f'torchvision==0.{int(release.group(1)) + 15}.*' if release else 'torchvision>=0.21'


def requirement_of(package: Package) -> str:
    if package.module == 'torchvision':
        return matching_torchvision()
    forked = installed(('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection'))
    return package.fork if package.fork and forked else package.requirement


def mend(package: Package, error: BaseException) -> str:
    """The pip line for an import of ``package`` that failed with ``error``."""
    text, found = str(error), installed(package.distributions)
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.partition('.')[0]
        if missing != package.module.partition('.')[0]:
            others = {other.module: requirement_of(other) for other in PACKAGES}
            return pip_install(others.get(missing) or DISTRIBUTIONS.get(missing, missing))
        if not found:
            return pip_install(requirement_of(package))
    if 'torchvision::' in text or package.module == 'torchvision':
        return pip_install(matching_torchvision())
    wanted = re.search(r'install (mmcv|mmengine)\s*(>=[^,\s]+),?\s*(<[^,\s]*[^,\s.])', text)
    if wanted:  # MMDetection's and MMCV's assertions about each other's versions
        name = 'mmcv-lite' if wanted.group(1) == 'mmcv' else 'mmengine'
        return pip_install(f'{name}{wanted.group(2)},{wanted.group(3)}')
    if 'libGL' in text or 'libgthread' in text:
        return ('pip uninstall -y opencv-python && '
                + pip_install('opencv-python-headless'))
    if 'compiled using NumPy 1' in text or '_ARRAY_API' in text:
        return pip_install('numpy<2')
    name = '=='.join(next(iter(found.items()), (requirement_of(package),)))
    return f'pip install --force-reinstall --no-deps "{name}"'  # the files, not the choice, are bad


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def _import(module: str) -> None:
    loaded = importlib.import_module(module)
    if module == 'torchvision':
        # a torchvision of another torch may import, and fail at its first kernel
        import torch
        loaded.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)


def check_packages(report: Report) -> None:
    """Versions of everything, and an import of each, in the order of their dependencies."""
    versions, broken = report.versions, report.broken
    versions['python'] = platform.python_version()
    for package in PACKAGES:
        label = package.module.partition('.')[0]
        found = installed(package.distributions)
        versions[label] = ', '.join(f'{name} {version}' if name != label else version
                                    for name, version in found.items()) or 'missing'
        if len(found) > 1 and package.module != 'cv2':
            report.problems.append(Problem(
                f'{" and ".join(found)} overwrite each other in the folder {label}',
                f'pip uninstall -y {" ".join(found)} && {pip_install(next(iter(found)))}'))
        blocked = [need for need in package.needs if need in broken]
        if blocked:
            broken.append(package.module)
            if found:
                versions[label] += f' (not tried: needs {", ".join(blocked)})'
            else:
                report.problems.append(Problem(f'{label} is not installed',
                                               pip_install(requirement_of(package))))
            continue
        try:
            _import(package.module)
        except Exception as error:
            broken.append(package.module)
            absent = not found and isinstance(error, ModuleNotFoundError) and (
                (error.name or '').partition('.')[0] == label)
            versions[label] += '' if absent else ' (broken)'
            report.problems.append(Problem(
                f'{label} is not installed' if absent
                else f'import {package.module} fails with {_first_line(error)}',
                mend(package, error)))
    versions['setuptools'] = installed(('setuptools',)).get('setuptools', 'missing')
    versions['kd_det'] = importlib.import_module('kd_det.version').__version__


def check_setup(report: Report) -> None:
    """What ``import kd_det`` does, then the ops backend and the checkpoint routes."""
    importlib.import_module('kd_det.setup').setup()
    report.ops = importlib.import_module('kd_det.compat.ext').backend()
    checkpoint = importlib.import_module('kd_det.compat.checkpoint')
    if not checkpoint.is_installed():
        report.problems.append(Problem(
            "checkpoints do not load safely: MMEngine's loaders are not those of kd_det"))
        return
    import numpy as np
    import torch
    file = io.BytesIO()
    torch.save({'best_score': np.float64(0.5)}, file)
    file.seek(0)
    report.safe_checkpoints = checkpoint.load(file) == {'best_score': 0.5}


def check_config_paths(report: Report) -> None:
    """``mmdet::`` in a config's ``_base_`` asks MMEngine where mmdet is; 0.10 needs setuptools."""
    try:
        importlib.import_module('mmengine.utils').get_installed_path('mmdet')
    except ModuleNotFoundError as error:
        if error.name != 'pkg_resources':
            raise
        report.problems.append(Problem(
            'configs that inherit from "mmdet::..." cannot be read: MMEngine imports '
            f'pkg_resources, which setuptools dropped in 81 (here: '
            f'{report.versions["setuptools"]})', pip_install('setuptools<81')))


def check_hardware(report: Report) -> None:
    """Cores and threads; GPUs and the CUDA version PyTorch was built for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    threads = os.environ.get('OMP_NUM_THREADS')
    report.cpu = f'{cores} cores, OMP_NUM_THREADS ' + (threads or 'not set')
    try:
        import torch
    except Exception:
        return  # check_packages has said so
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        report.gpu = f'{", ".join(names)}; CUDA {torch.version.cuda or torch.version.hip}'
    elif shutil.which('nvidia-smi'):
        built = torch.version.cuda
        report.gpu += '; nvidia-smi is here, but ' + (
            f'CUDA {built} does not start: is the driver older?' if built
            else 'this PyTorch is built without CUDA')


def check_training(report: Report) -> None:
    """One training step on each kind of device there is."""
    import torch
    train_one_step = importlib.import_module('kd_det.doctor_training').train_one_step
    devices = ['cpu'] + ['cuda'] * torch.cuda.is_available()
    for device in devices:
        try:
            loss, seconds = train_one_step(device)
            report.training[device] = f'loss {loss:.3f} after {seconds:.2f} s'
        except Exception as error:
            traceback.print_exc()
            report.training[device] = 'failed'
            mmdet = next(package for package in PACKAGES if package.module == 'mmdet')
            report.problems.append(Problem(  # a module may be missing that is imported late
                f'a tiny Faster R-CNN does not train on {device}: {_first_line(error)}',
                mend(mmdet, error) if isinstance(error, ModuleNotFoundError) else ''))
    report.can_train = all(result != 'failed' for result in report.training.values())


def examine() -> Report:
    """Run the checks; one that raises becomes a problem of its own."""
    report = Report()
    checks: list[Callable[[Report], None]] = [
        check_packages, check_hardware, check_setup, check_config_paths, check_training]
    for number, check in enumerate(checks):
        if number >= 2 and report.broken:
            break  # the rest needs the whole stack; what is wrong with it is listed
        try:
            check(report)
        except Exception as error:
            traceback.print_exc()
            name = check.__name__.removeprefix('check_').replace('_', ' ')
            report.problems.append(Problem(f'the check of {name} fails: {_first_line(error)}'))
    return report


def as_text(report: Report) -> str:
    rows: dict[str, Any] = {
        **report.versions,
        'mmcv ops': {'torchvision': 'served by kd_det from torchvision and PyTorch',
                     'compiled': 'compiled'}.get(report.ops, report.ops),
        'safe loading': 'active' if report.safe_checkpoints else 'not active',
        'GPU': report.gpu, 'CPU': report.cpu,
        **{f'training, {device}': result
           for device, result in (report.training or {'cpu': 'not tried'}).items()}}
    lines = [f'{name:<15} {value}' for name, value in rows.items()]
    for problem in report.problems:
        lines += ['', f'BROKEN  {problem.what}']
        lines += [f'  mend  {problem.mend}'] if problem.mend else []
    healthy = report.can_train and not report.problems
    lines += ['', 'A detector can train here.' if healthy else
              'A detector can train here, but not all is well.' if report.can_train else
              'No detector can train here.']
    return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m kd_det.doctor', description=__doc__)
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    options = parser.parse_args(arguments)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of other packages: what matters here is what fails
        report = examine()
    print(json.dumps(asdict(report), indent=2) if options.json else as_text(report))
    return 0 if report.can_train and not report.problems else 1


if __name__ == '__main__':
    raise SystemExit(main())
