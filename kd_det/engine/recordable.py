"""Which teachers of a run are recorded, and whether its pipelines are such that they can be."""
from typing import Any

from torch import nn

from ..datasets.exact_views import check_exact_views
from ..datasets.followed_views import check_followed
from ..detectors import Distiller
from ..sources import RecordedTeacher


def recorded(model: Distiller) -> list[RecordedTeacher]:
    """The recorded teachers that terms ask."""
    return [source for name, source in model.sources.items()
            if isinstance(source, RecordedTeacher) and model.reached(name, list(model.terms))]


def check_recordable(source: RecordedTeacher, dataset: Any, preprocessor: nn.Module,
                     where: str = 'train_dataloader.dataset') -> None:
    """What is asked of ``source`` can be kept for what ``dataset`` shows: maps for exact views, boxes for views that
    say where they put a box.

    Args:
        preprocessor: the student's.
        where (str): the config key of the data set.

    Raises:
        ConfigError: a transform, named, for which it cannot.
    """
    if source.of_views:
        check_exact_views(dataset, preprocessor, f'{source.key}.record', where)
    if source.boxes is not None:
        check_followed(dataset, preprocessor, f'{source.key}.record', where)
