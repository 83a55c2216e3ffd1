"""Before training, how good each teacher of an ensemble is at each class, and how much it counts for it."""
import json
import os.path as osp
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from ..errors import ConfigError
from ..files import write_whole
from ..sources import Ensemble
from ..sources.ensemble import Member
from ..weights import digest
from .distill_hook import distiller_of
from .teacher_figures import aps_by_class, why_not

FILE = 'teacher_ap.json'


class EnsembleWeightsHook(Hook):
    """Measures the AP of each class of every teacher in an ensemble with ``weights='ap'``, and hands it to the
    ensemble.

    All images of the evaluation set (``val_dataloader``) count, read by the student's evaluation pipeline and shared
    between the processes; with ``weights=dict(ap=ANN_FILE)`` those of another annotation file in its place. What is
    trained on should not be among them, and what is reported must not be. Figures are logged and kept as
    ``teacher_ap.json`` in the work directory, where a resumed run finds them; figures of other weights, images or
    classes are measured anew. No random state is changed.

    Every runner of a distiller has it (:func:`kd_det.engine.attach.attach_to_runner`).

    Raises:
        ConfigError: the AP of a teacher cannot be had.
    """

    priority = 'LOWEST'  # after the checks that refuse a run

    def before_train(self, runner: Runner) -> None:
        model = distiller_of(runner)
        for name, source in model.sources.items():
            if isinstance(source, Ensemble) and source.weighs_by_ap and model.reached(name, list(model.terms)):
                self._weigh(runner, source)

    def _weigh(self, runner: Runner, ensemble: Ensemble) -> None:
        path = osp.join(runner.work_dir, FILE)
        known = _shared(lambda: _read(path))
        dataset = _dataset(runner, ensemble)
        figures: dict[str, list[float | None]] = {}
        for name, member in ensemble.members.items():
            reason = why_not(runner, member.teacher, classes=member.class_map is None)
            if reason:
                raise ConfigError(f'{ensemble.key}.weights: \'ap\' needs the AP of {name!r} on the evaluation set, and '
                                  f'{reason}; give numbers, members=dict({name}=dict(weight=...))')
            what = _what(dataset, member)
            key = json.dumps(what, sort_keys=True)
            if key not in known:
                runner.logger.info(f'{ensemble.key}: measuring the AP of {name!r} on {what["images"]} images')
                known[key] = dict(what, ap=_measured(dataset, member))
                if is_main_process():
                    write_whole(path, json.dumps(list(known.values()), indent=1) + '\n')
            figures[name] = known[key]['ap']
        shares = ensemble.set_ap(figures)
        runner.logger.info('\n'.join(_table(ensemble, figures, shares.tolist(), list(dataset.metainfo['classes']),
                                            path)))


def _shared(read: Any) -> Any:
    """What rank 0 reads, on all ranks."""
    found = [read() if is_main_process() else None]
    broadcast_object_list(found)
    return found[0]


def _read(path: str) -> dict[str, dict]:
    """Figures of an earlier start of the run, by what they are of."""
    if not osp.isfile(path):
        return {}
    try:
        with open(path, encoding='utf-8') as file:
            rows = json.load(file)
        return {json.dumps({k: v for k, v in row.items() if k != 'ap'}, sort_keys=True): row for row in rows}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f'{path} cannot be read ({error}); remove it, and the figures are measured again') from error


def _dataset(runner: Runner, ensemble: Ensemble) -> Any:
    """The evaluation set, or the same with the annotation file that the ensemble names."""
    if runner.val_loop is None:
        raise ConfigError(f'{ensemble.key}.weights: \'ap\' needs an evaluation set, and there is none (val_dataloader)')
    if ensemble.ap_on is None:
        return runner.val_loop.dataloader.dataset
    with DefaultScope.overwrite_default_scope('mmdet'):
        try:
            return DATASETS.build(dict(runner.cfg.val_dataloader.dataset, ann_file=ensemble.ap_on))
        except FileNotFoundError as error:
            raise ConfigError(f'{ensemble.key}.weights.ap: {error}') from error


def _what(dataset: Any, member: Member) -> dict:
    """What figures are of: weights, images, classes."""
    truth = [[len(dataset), *(str(dataset.get_data_info(i).get('img_id')) for i in (0, len(dataset) - 1))],
             osp.basename(str(getattr(dataset, 'ann_file', '')))]
    return dict(weights=digest(member.teacher.network.state_dict()), images=len(dataset), evaluation=truth,
                classes=list(dataset.metainfo['classes']), knows=member.class_map)


def _measured(dataset: Any, member: Member) -> list[float | None]:
    return aps_by_class(member.teacher, dataset, len(dataset), member.class_map)


def _table(ensemble: Ensemble, figures: dict, shares: list, classes: list[str], path: str) -> list[str]:
    width = max(map(len, ('class', *classes)))
    lines = [f'{ensemble.key}: AP by class on the evaluation set, and the share of each teacher (kept in {path})',
             f'  {"class":<{width}}  ' + '  '.join(f'{name:>14}' for name in ensemble.members)]
    for c, name in enumerate(classes):
        cells = ['-' if figures[m][c] is None else f'{100 * figures[m][c]:.1f}' for m in ensemble.members]
        lines.append(f'  {name:<{width}}  ' + '  '.join(f'{cell:>6} ({100 * row[c]:3.0f} %)'
                                                        for cell, row in zip(cells, shares)))
    return lines
