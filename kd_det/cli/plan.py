"""``kd-det plan``: what is distilled where, level by level, without training."""
import argparse

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..build import build
from ..detectors import Distiller
from .changes import add_changes, changed_config

SUMMARY = 'say what a config distils where'
EXAMPLES = """
  kd-det plan kd_det::pkd/retinanet_r50_fpn_1x_coco_pkd-fcos-x101.py
  kd-det plan DISTIL.py --student STUDENT.py
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_changes(parser)


def print_plan(cfg: Config) -> None:
    """Build the detector as the runner would and print its distillation plan."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        model = build('model', cfg.model, MODELS)
    print('\n'.join(model.plan()) if isinstance(model, Distiller) else
          f'{type(model).__name__}: a plain detector, nothing is distilled')


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    print_plan(changed_config(args))
    return 0
