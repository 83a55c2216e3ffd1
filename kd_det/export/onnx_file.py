"""Write the ONNX file and its post-processing; they get their final names when ONNX Runtime agrees with PyTorch."""
import json
import os
import os.path as osp
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from mmdet.models.dense_heads import PAAHead, YOLOXHead
from mmengine.config import Config
from torch import nn

from ..errors import ConfigError
from ..files import write_whole
from . import onnx_detect
from .graph import ExportedDetector
from .head_outputs import outputs_of
from .plain_files import refuse_existing
from .two_stage_graph import ExportedTwoStage, check_two_stage
from .verify import Agreement, verify

PACKAGES = ('onnx', 'onnxruntime', 'onnxscript')


def check_packages() -> None:
    """Raises :class:`ConfigError` where a package of the extra is missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(f'--onnx needs {", ".join(missing)}: pip install "kd_det[export]"')


def input_size(cfg: Config, wanted: Sequence[int] | None = None) -> tuple[int, int]:
    """(height, width): ``wanted``, or what the config's test pipeline resizes to, up to a multiple of the padding.

    Raises:
        ConfigError: no size in the pipeline, or a wanted one that is no multiple of the padding.
    """
    divisor = (cfg.model.get('data_preprocessor') or {}).get('pad_size_divisor', 1)
    divisor = max(divisor, 32)  # strides of the deepest level that every neck halves exactly
    if wanted is not None:
        height, width = wanted
        if height < 1 or width < 1 or height % divisor or width % divisor:
            raise ConfigError(f'--size {height} {width}: multiples of {divisor} are expected')
        return height, width
    scales = [step['scale'] for step in _test_steps(cfg) if 'Resize' in str(step['type']) and step.get('scale')]
    if not scales:
        raise ConfigError('--size: the config\'s test pipeline names no size to resize to; give --size HEIGHT WIDTH')
    width, height = scales[0] if isinstance(scales[0], (tuple, list)) else (scales[0], scales[0])
    return -(-int(height) // divisor) * divisor, -(-int(width) // divisor) * divisor


def metadata(cfg: Config, model: nn.Module, size: tuple[int, int], classes: Sequence[str]) -> dict:
    """What a user of the file has to know, as it stands under ``kd_det`` in its metadata."""
    two_stages = hasattr(model, 'roi_head')
    head = model.roi_head.bbox_head if two_stages else model.bbox_head
    preprocessor, test = model.data_preprocessor, model.test_cfg.rcnn if two_stages else head.test_cfg
    nms = dict(test.get('nms') or {})
    if nms.get('type', 'nms') != 'nms':
        raise ConfigError(f'--onnx: model.test_cfg.nms.type {nms["type"]!r}; the post-processing knows \'nms\' alone')
    normalises = getattr(preprocessor, '_enable_normalize', False)
    mean = preprocessor.mean.flatten().tolist() if normalises else [0.0] * 3
    std = preprocessor.std.flatten().tolist() if normalises else [1.0] * 3
    rgb = bool(getattr(preprocessor, '_channel_conversion', False))
    pads = [step for step in _test_steps(cfg) if str(step['type']).rsplit('.', 1)[-1] == 'Pad']
    value = pads[0].get('pad_val', 0) if pads else None
    value = value.get('img', 0) if isinstance(value, dict) else value
    pad = mean if value is None else list(value) if isinstance(value, (tuple, list)) else [float(value)] * 3
    clips = True if two_stages else outputs_of(model).clips
    return dict(classes=list(classes), input_size=list(size), mean=mean, std=std,
                channel_order='rgb' if rgb else 'bgr', pad_value=pad, score_threshold=float(test.get('score_thr', 0)),
                nms_iou=float(nms.get('iou_threshold', 0.5)),
                max_per_image=int(test.get('max_per_img', -1)) if test.get('max_per_img', -1) > 0 else 10**9,
                min_size=_min_size(test, head), clip=clips, vote=bool(getattr(head, 'with_score_voting', False)),
                nms_included=False, takes_shape=two_stages, head=type(head).__name__)


def _min_size(test: dict, head: nn.Module) -> float:
    """Sides up to this many pixels are dropped; -1e9: none are, as in PAA and YOLOX, which do not look at the setting.
    """
    least = test.get('min_bbox_size', -1)
    return -1e9 if isinstance(head, (PAAHead, YOLOXHead)) or least < 0 else float(least)


def _test_steps(cfg: Config) -> list[dict]:
    dataset = (cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}).get('dataset') or {}
    return list(dataset.get('pipeline') or [])


def write_onnx(cfg: Config, model: nn.Module, out: str, classes: Sequence[str], images: Sequence[str],
               size: Sequence[int] | None = None, overwrite: bool = False,
               progress: Callable[[str], None] = print) -> tuple[str, Agreement]:
    """Export ``model`` to the file ``out``, with ``<name>_detect.py`` beside it.

    Args:
        cfg: of the deployed detector.
        model: in eval mode, on the CPU.
        out: ends in .onnx.
        classes: names by label.
        images: files to verify on.
        size: (height, width); None: of the test pipeline.

    Returns:
        tuple: the file's path, and what the verification found.

    Raises:
        ConfigError: packages are missing; the head, the size or the NMS is not known; no images; a file is there; the
            export disagrees with PyTorch, and nothing is left under the final name then.
    """
    check_packages()
    beside = osp.splitext(out)[0] + '_detect.py'
    refuse_existing([out, beside], overwrite)
    if not images:
        raise ConfigError('--images: no image to verify the export on; give a folder of them')
    (check_two_stage if hasattr(model, 'roi_head') else outputs_of)(model)
    size = input_size(cfg, size)
    meta = metadata(cfg, model, size, classes)
    folder = osp.dirname(osp.abspath(out))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix='.export-') as work:
        path = osp.join(work, osp.basename(out))
        progress(f'exporting {type(model).__name__} at {size[0]}x{size[1]} ...')
        export(model, size, path, meta)
        progress(f'verifying on {len(images)} images ...')
        agreement = verify(model, path, images)
        if agreement.faults:
            raise ConfigError(f'--onnx: ONNX Runtime disagrees with PyTorch, {out} is not written; '
                              + '; '.join(agreement.faults[:3]))
        with open(onnx_detect.__file__, 'rb') as file:
            write_whole(beside, file.read())
        shutil.move(path, out)
    return out, agreement


def export(model: nn.Module, size: tuple[int, int], path: str, meta: dict) -> None:
    """``torch.onnx`` by ``torch.export`` (the older tracing exporter is silently wrong for RTMDet)."""
    import onnx
    two_stages = hasattr(model, 'roi_head')
    graph = (ExportedTwoStage if two_stages else ExportedDetector)(model, size).eval()
    inputs = {'images': torch.zeros(1, 3, *size)}
    if two_stages:
        inputs['shape'] = torch.tensor(size, dtype=torch.float32)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        torch.onnx.export(graph, tuple(inputs.values()), path, dynamo=True, external_data=False, verbose=False,
                          input_names=list(inputs), output_names=['scores', 'boxes'])
    file = onnx.load(path)
    onnx.helper.set_model_props(file, {'kd_det': json.dumps(meta)})
    onnx.save(file, path)
