"""All pictures of a sample of images, as files in a folder."""
import os
import os.path as osp
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..compare.error_types import TYPES, find_errors
from ..compare.runs import Run
from ..compare.sample import Sample, check_classes, detect, sample_of
from ..errors import CheckpointMismatch, CompareError, ConfigError
from ..files import write_whole
from . import detections, features, positives
from .canvas import png
from .subjects import Subject, Taught, deployed, find_runs, is_taught, taught, teachers_of

KINDS = ('detections', 'errors', 'anchors', 'hints')


@dataclass
class Settings:
    """How pictures are made.

    Attributes:
        kinds: of :data:`KINDS`; those that a run does not have are left out with a remark.
        number: images, evenly spaced over the test set.
        named: image files of the test set instead.
        score: detections below it are not drawn, and make no error.
        side: pixels of a panel's longer side.
        reduction: of features over channels, see :func:`.features.reduced`.
        with_teacher: look at the teachers of runs that have one.
        overwrite: pictures that are there.
    """
    kinds: Sequence[str] = KINDS
    number: int = 8
    named: Sequence[str] = ()
    score: float = 0.3
    side: int = 400
    reduction: str = 'norm'
    with_teacher: bool = True
    overwrite: bool = False


def draw_all(specs: Sequence[str], out: str, settings: Settings, names: Sequence[str] | None = None,
             data_root: str | None = None, device: torch.device | None = None,
             progress: Callable[[str], None] = lambda message: None) -> tuple[list[str], list[str]]:
    """Write the pictures.

    Args:
        specs: work directories or ``CONFIG:CHECKPOINT``.
        out: folder; it is made.
        settings: see :class:`Settings`.
        names: one for each run.
        data_root: in place of the configs' own.
        device: None takes CUDA where there is one.
        progress: told what is being done.

    Returns:
        tuple: the files, and remarks: what was left out and why, and how many errors of each type each detector makes.

    Raises:
        CompareError: no test set, other classes, pictures that are there already; and what finding a run raises.
    """
    device = device or torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    runs = find_runs(specs, names, data_root)
    sample = sample_of([run.cfg for run in runs], settings.number, settings.named)
    if sample is None:
        raise CompareError('the test set was not found; say where the data is with --data-root')
    folder = _Folder(out, settings.overwrite)
    learned, remarks = _learned(runs, settings, device, progress)
    if {'detections', 'errors'} & set(settings.kinds):
        remarks += _draw_detections(runs, learned, sample, settings, folder, device, progress)
    for found in learned:
        remarks += _draw_taught(found, sample, settings, folder, len(learned) > 1, progress)
    if not folder.files:
        raise CompareError('nothing could be drawn: ' + '; '.join(remarks))
    return folder.files, remarks


class _Folder:
    """Where pictures go; none that is there is lost without being asked for."""

    def __init__(self, path: str, overwrite: bool) -> None:
        self.path, self.overwrite = path, overwrite
        self.files: list[str] = []
        if osp.isdir(path) and not overwrite and any(name.endswith('.png') for name in os.listdir(path)):
            raise CompareError(f'{path} holds pictures already; give another folder, or --overwrite')
        os.makedirs(path, exist_ok=True)

    def keep(self, name: str, image) -> None:
        path = osp.join(self.path, f'{name}.png')
        write_whole(path, png(image))
        self.files.append(path)


def _learned(runs: Sequence[Run], settings: Settings, device: torch.device,
             progress: Callable[[str], None]) -> tuple[list[Taught], list[str]]:
    """The runs that distil, with their teachers."""
    if not settings.with_teacher:
        wanted = bool({'anchors', 'hints'} & set(settings.kinds))
        return [], ['no teacher was looked at, so no anchors and no hints'] * wanted
    found, remarks = [], []
    for run in runs:
        if is_taught(run):
            progress(f'loading {run.name} and what teaches it ...')
            try:
                found.append(taught(run, device))
            except (ConfigError, CheckpointMismatch, CompareError) as error:
                raise CompareError(f'{run.name}: {error}; --no-teacher leaves teachers out') from error
    if not found and {'anchors', 'hints'} & set(settings.kinds):
        remarks.append('no anchors and no hints: none of the runs distils')
    return found, remarks


def _draw_detections(runs: Sequence[Run], learned: Sequence[Taught], sample: Sample, settings: Settings,
                     folder: _Folder, device: torch.device, progress: Callable[[str], None]) -> list[str]:
    subjects: list[Subject] = []
    for found in learned:
        subjects += [teacher for teacher in teachers_of(found)
                     if _weights(teacher) not in [_weights(other) for other in subjects]]
    for i, subject in enumerate(subjects):  # two runs may call different teachers alike
        if [other.name for other in subjects].count(subject.name) > 1:
            subject.name = f'{subject.name} {i + 1}'
    subjects += [deployed(run, device) for run in runs]
    seen, errors, remarks = [], [], []
    for subject in subjects:
        check_classes(subject.name, subject.cfg, sample.classes)
        progress(f'looking at {len(sample.photos)} images with {subject.name} ...')
        seen.append([row for row in detect(subject.model, subject.cfg, sample.photos)
                     if row['score'] >= settings.score])
        errors.append(find_errors(sample.truth, seen[-1]))
        counts = errors[-1].counts()
        remarks.append(f'{subject.name}: {errors[-1].types.count("correct")} correct, '
                       + ', '.join(f'{counts[kind]} {kind}' for kind in TYPES))
    names = [subject.name for subject in subjects]
    for i, photo in enumerate(sample.photos):
        if 'detections' in settings.kinds:
            folder.keep(f'detections_{i:03}', detections.side_by_side(sample, photo, names, seen, settings.score,
                                                                      settings.side))
        if 'errors' in settings.kinds:
            folder.keep(f'errors_{i:03}', detections.mistakes(sample, photo, names, seen, errors, settings.score,
                                                              settings.side))
    return remarks


def _weights(subject: Subject) -> int:
    """Equal for one network that teaches several runs, by its values."""
    return hash(tuple(float(p.sum()) for p in subject.model.parameters()))


def _draw_taught(found: Taught, sample: Sample, settings: Settings, folder: _Folder, several: bool,
                 progress: Callable[[str], None]) -> list[str]:
    suffix = f'_{found.name}' if several else ''
    remarks = []
    if 'anchors' in settings.kinds:
        try:
            positives.check_decides(found)
            progress(f'assigning with {found.name} and its teacher ...')
            for i, photo in enumerate(sample.photos):
                if (image := positives.picture(found, sample, photo, settings.side)) is not None:
                    folder.keep(f'anchors{suffix}_{i:03}', image)
        except CompareError as error:
            remarks.append(f'no anchors of {error}')
    if 'hints' in settings.kinds:
        try:
            hints = features.hints_of(found)
            progress(f'comparing features of {found.name} ...')
            for i, photo in enumerate(sample.photos):
                for k, hint in enumerate(hints):
                    folder.keep(f'hints{suffix}{f"_{k}" if len(hints) > 1 else ""}_{i:03}', features.picture(
                        found, hint, sample, photo, settings.side, settings.reduction))
        except CompareError as error:
            remarks.append(f'no hints of {error}')
    return remarks
