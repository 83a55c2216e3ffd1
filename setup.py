"""Packaging of kd_det.

The OpenMMLab stack is deliberately not among the requirements: whoever already has it (the official packages or the
``onedl-*`` forks, which share import names) keeps it. ``pip install -e .[openmmlab]`` brings it, with the packages it
needs and does not declare.
"""
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = {'configs': 'configs', 'studies': 'tools/benchmarks/studies'}  # folder in kd_det/.mim -> the one source


class BuildWithConfigs(build_py):
    """Put the shipped configs into the package; an editable installation finds the repository's by links."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / 'kd_det' / '.mim'
        for name, source in SHIPPED.items():
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(ROOT / source, target / name, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
        shutil.copy(ROOT / 'kd_det' / '.mim' / 'model-index.yml', target)


def version() -> str:
    scope: dict = {}
    exec((ROOT / 'kd_det' / 'version.py').read_text(), scope)
    return scope['__version__']


# mmengine 0.10 imports pkg_resources, which setuptools dropped in 81, and declares no setuptools at all.
PKG_RESOURCES = 'setuptools<81'

setup(
    name='kd_det',
    version=version(),
    description='Knowledge distillation for object detection: MMDetection 3 plugins',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8') if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['kd_det', 'kd_det.*']),
    cmdclass={'build_py': BuildWithConfigs},
    entry_points={'console_scripts': ['kd-det = kd_det.__main__:main']},
    install_requires=['torch>=2.6', 'torchvision>=0.21', 'numpy>=1.24', 'pycocotools>=2.0.7'],
    extras_require={
        'openmmlab': ['mmdet==3.3.0', 'mmengine==0.10.7', 'mmcv-lite==2.1.0', PKG_RESOURCES],
        # the maintained forks: same import names, so in an environment of their own
        'onedl': ['onedl-mmdetection==3.5.1', 'onedl-mmengine==0.10.12', 'onedl-mmcv==2.3.6'],
        'tools': ['scikit-learn>=1.3', 'matplotlib>=3.7', 'pillow>=9'],
        'timm': ['timm>=1.0.15'],
        'export': ['onnx>=1.17', 'onnxruntime>=1.20', 'onnxscript>=0.5'],
        'test': ['pytest>=7', 'pytest-timeout', 'pytest-xdist', 'ruff>=0.6', 'scikit-learn>=1.3', 'matplotlib>=3.7',
                 'hypothesis>=6', 'timm>=1.0.15', 'onnx>=1.17', 'onnxruntime>=1.20', 'onnxscript>=0.5',
                 'tensorboard>=2.15'],
    },
)
