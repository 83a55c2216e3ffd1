"""What a run with recorded teachers needs: exact views, shards that reach the disk, and a word about their size."""
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..datasets.exact_views import directions
from ..sources import RecordedTeacher
from ..sources.shards import in_words
from .distill_hook import distiller_of
from .recordable import check_recordable, recorded


class RecordHook(Hook):
    """Refuses pipelines of which nothing can be recorded, writes the last shard of each epoch, and lets go of a teacher
    of which an epoch asked nothing.

    Every runner of a distiller with a recorded teacher has it (:func:`kd_det.engine.attach.attach_to_runner`).
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._views: int | None = None

    def before_train(self, runner: Runner) -> None:
        model, dataset = distiller_of(runner), runner.train_dataloader.dataset
        for source in recorded(model):
            check_recordable(source, dataset, model.data_preprocessor)
        self._views = len(dataset) * (len(directions(dataset)) if any(one.of_views for one in recorded(model)) else 1)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if self._views is None:
            return
        for source in recorded(distiller_of(runner)):
            if source.counts['asked']:
                print_log(size_of(source, self._views), 'current')
        self._views = None

    def after_train_epoch(self, runner: Runner) -> None:
        for source in recorded(distiller_of(runner)):
            source.shards.flush()
            counts, source.counts = source.counts, dict(read=0, asked=0)
            print_log(f'{source.key}.record: {counts["read"]} answers read, {counts["asked"]} asked of the live '
                      f'teacher; {len(source.shards)} views, {in_words(source.shards.bytes)} in {source.record.folder}',
                      'current')
            if counts['read'] and not counts['asked']:
                source.release()

    def after_train(self, runner: Runner) -> None:
        for source in recorded(distiller_of(runner)):
            source.shards.flush()


def size_of(source: RecordedTeacher, views: int) -> str:
    """What recording so many views takes, in words."""
    each = source.shards.bytes_per_view
    fits = '' if views * each <= source.record.max_bytes else ': NOT ALL OF IT FITS'
    return (f'{source.key}.record: {in_words(each)} a view, {views} views (on one canvas), {in_words(views * each)} of '
            f'at most {in_words(source.record.max_bytes)} (max_disk){fits}')
