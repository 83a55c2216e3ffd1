"""Brings a distiller a batch of images without labels in every step."""
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..datasets.stream import Stream
from ..detectors import Distiller
from ..detectors.unlabelled import looks_at_rois
from ..errors import ConfigError
from ..random_state import seed_of
from ..sources import RecordedTeacher
from .distill_hook import distiller_of
from .recordable import check_recordable, recorded

KEY = 'unlabelled_dataloader'


class UnlabelledHook(Hook):
    """Takes the batches of the config's ``unlabelled_dataloader``, one a step, without end.

    The batch of a step depends on the seed and on the number of the step alone, so that a resumed run sees what it
    would have seen. Each process takes its own share. The labelled batches and the random state of the step are those
    of a run without such images.

    Every runner of a distiller has it (:func:`kd_det.engine.attach.attach_to_runner`).

    Raises:
        ConfigError: a loader that no model asks for, or a model that asks and finds none.
    """

    def __init__(self) -> None:
        self._batches: Iterator[Any] | None = None

    def before_train(self, runner: Runner) -> None:
        check_unlabelled(runner)
        model = distiller_of(runner)
        if model.unlabelled is None or not model.unlabelled.acting(model.terms):
            return
        loader = runner.build_dataloader(runner.cfg[KEY], seed=runner.seed,
                                         diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False))
        for name, source in model.sources.items():
            if source in recorded(model) and model.unlabelled.acting(model.reached(name, list(model.terms))):
                check_recordable(source, loader.dataset, model.data_preprocessor, f'{KEY}.dataset')
        runner.logger.info(f'{KEY}: {len(loader.dataset)} images, {len(loader)} batches before they begin anew')
        self._batches = iter(Stream(KEY, loader, seed_of(runner.seed, KEY), runner.iter))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._batches is not None:
            distiller_of(runner).unlabelled.take(next(self._batches))

    def after_train(self, runner: Runner) -> None:
        self._batches = None  # ends its workers


def check_unlabelled(runner: Runner) -> None:
    """Refuse a loader that nothing reads, and a model that has nothing to read."""
    model, loader = distiller_of(runner), runner.cfg.get(KEY)
    wanted = model.unlabelled if isinstance(model, Distiller) else None
    if loader is not None and not isinstance(model, Distiller):
        raise ConfigError(f'{KEY}: found one, and {type(model).__name__} distils nothing, so that nothing would read '
                          'it; leave it out, or give a distil config')
    if loader is not None and wanted is None:
        raise ConfigError(f'{KEY}: found one, and the model asks for none; add model.unlabelled=dict(weight=1.)')
    if wanted is None or not wanted.weight:
        return
    if not isinstance(loader, dict) or 'dataset' not in loader:
        raise ConfigError(f'{KEY}: found {loader!r}, and model.unlabelled asks for one; a data loader is expected, '
                          f'dict(batch_size=4, sampler=dict(type=\'DefaultSampler\', shuffle=True), '
                          'dataset=dict(type=\'UnlabelledImages\', ...))')
    if not wanted.acting(model.terms):
        raise ConfigError('model.unlabelled: no term acts on images without labels; those that there are need ground '
                          f'truth or have images=\'labelled\': {[term.key for term in model.terms]}')
    proposing = next((term for term in wanted.acting(model.terms) if looks_at_rois(term)), None)
    recorded = [source.key for name, source in model.sources.items() if proposing is not None
                and isinstance(source, RecordedTeacher) and model.reached(name, [proposing])]
    if recorded:
        raise ConfigError(f'{recorded[0]}.record: {proposing.key} asks for proposals on images without labels, which '
                          f'are not recorded; take record out, or give {proposing.key} images=\'labelled\'')
