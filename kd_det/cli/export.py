"""``kd-det export CHECKPOINT OUT``: the student as plain MMDetection files, and as a verified ONNX file."""
import argparse
import glob
import os.path as osp
from importlib.metadata import version

from ..compare.images import test_images
from ..compare.student import build_detector
from ..config import load_config
from ..errors import ConfigError
from ..export.onnx_file import check_packages, input_size, write_onnx
from ..export.plain_files import class_names, plain_config, write_plain
from ..files import check_writable
from ..weights import read_state_dict

SUMMARY = 'the student as plain MMDetection files that need no kd_det, and as a verified ONNX file'
EXAMPLES = """
  kd-det export work_dirs/my_run/epoch_12.pth exported
  kd-det export epoch_12.pth exported --config my_config.py --onnx --images photos --size 320 320
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='of a distilled or plain run')
    parser.add_argument('out', metavar='OUT', help='folder for the files')
    parser.add_argument('--config', help='of the run (default: the one config beside the checkpoint)')
    parser.add_argument('--network', choices=['first', 'second'], help='of a CoLAD pair')
    parser.add_argument('--onnx', action='store_true', help='write an ONNX file too, verified with ONNX Runtime')
    parser.add_argument('--images', metavar='DIR', help='images to verify on (default: of the config\'s test set)')
    parser.add_argument('--number', type=int, default=8, help='images to verify on (default 8)')
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help='input of the ONNX file (default: what the test pipeline resizes to)')
    parser.add_argument('--data-root', help='the data set is here instead of the config\'s data_root')
    parser.add_argument('--overwrite', action='store_true', help='replace files that are there')


def run(args: argparse.Namespace) -> int:
    if args.onnx:
        check_packages()
    if args.number < 1:
        raise ConfigError(f'--number {args.number}: at least 1')
    check_writable('OUT', args.out, folder=True)
    cfg = load_config(args.config or beside(args.checkpoint), data_root=args.data_root)
    plain, _ = plain_config(cfg, args.network)
    if args.onnx:
        images = verification_images(args, plain)
        input_size(plain, args.size)
    files = write_plain(cfg, args.checkpoint, args.out, args.network, args.overwrite)
    print(f'{files.config}\n{files.checkpoint}')
    for kind, reason in files.needs.items():
        print(f'needs kd_det: {kind}, {reason}; custom_imports of the config brings it')
    if files.module:
        print(f'{files.module}\nits backbone is timm\'s: needs timm {version("timm")} or one with the same model. Keep '
              f'the three files together; the config finds {osp.basename(files.module)} in its own folder (one that '
              f'inherits it too; for a dump of it elsewhere: PYTHONPATH={args.out})')
    if not files.needs:
        print('needs no kd_det: plain MMDetection loads ' + ('them' if files.module else 'both'))
    if args.onnx:
        state, meta = read_state_dict(args.checkpoint, args.network)
        model = build_detector(plain, state, args.checkpoint)
        name = osp.splitext(osp.basename(files.checkpoint))[0]
        path, found = write_onnx(plain, model, osp.join(args.out, f'{name}.onnx'), class_names(cfg, meta),
                                 images, args.size, args.overwrite)
        print(f'{path}\nverified: {found.detections} detections in {found.images} images are the same through ONNX '
              f'Runtime; largest difference {found.box:.2g} pixels, {found.score:.2g} in score')
        if found.ties:
            print(f'in {found.ties} of them equal scores stand in another order; NMS may take any of them first')
    return 0


def beside(checkpoint: str) -> str:
    """The config of a work directory; raises :class:`ConfigError` unless there is exactly one."""
    found = sorted(glob.glob(osp.join(glob.escape(osp.dirname(osp.abspath(checkpoint))), '*.py')))
    if len(found) != 1:
        raise ConfigError(f'--config: beside {checkpoint} there are {len(found)} configs (.py); name the run\'s')
    return found[0]


def verification_images(args: argparse.Namespace, cfg) -> list[str]:
    """``--number`` files of ``--images``, or of the config's test set."""
    if args.images is None:
        images = test_images([cfg], args.number)
        if not images:
            raise ConfigError('--images: the config\'s test set is not there, and the export is verified on images; '
                              'give a folder of them, or --data-root')
        return images
    found = sorted(path for ending in ('jpg', 'jpeg', 'png', 'bmp', 'JPG', 'PNG')
                   for path in glob.glob(osp.join(glob.escape(args.images), f'*.{ending}')))
    if not found:
        raise ConfigError(f'--images {args.images}: no .jpg, .png or .bmp there')
    return found[:args.number]
