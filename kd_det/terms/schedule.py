"""When a term acts, and how strongly."""
import math

from mmengine.logging import MessageHub

from ..arguments import at_most_one, non_negative_int, one_of
from ..build import checked
from ..errors import ConfigError

DECAYS = (None, 'cosine')


def training_progress() -> float:
    """How much of training is over, from 0 in the first step to nearly 1 in the last; 0 outside a runner."""
    hub = MessageHub.get_current_instance()
    iteration, iterations = (hub.get_info(name) or 0 for name in ('iter', 'max_iters'))
    return min(iteration / iterations, 1.0) if iterations else 0.0


class Schedule:
    """A factor on a term over the epochs of training::

        0                                             before start_epoch and from stop_epoch on
        1                                             in between, decay=None
        floor + (1 - floor) (1 + cos(pi x)) / 2       in between, decay='cosine'

    x runs from 0 to 1 between ``start_epoch`` and ``stop_epoch`` (the end of training where there is none), by
    iterations. Published recipes end with little distillation or none: RTMDet's stops for the last 20 of 300 epochs,
    YOLOv6's decays by half a cosine to 0.01.

    Args:
        start_epoch (int): the first epoch with the term, from 0.
        stop_epoch (int | None): the first epoch without it.
        decay (str | None): None or 'cosine'.
        floor (float): where the cosine ends, in [0, 1].
        key (str): for messages.

    Outside a runner (no epoch is known) the first epoch is meant.

    Raises:
        ConfigError: values that cannot be meant.
    """

    def __init__(self, start_epoch: int = 0, stop_epoch: int | None = None, decay: str | None = None,
                 floor: float = 0.0, key: str = '') -> None:
        for name, value in (('start_epoch', start_epoch), ('stop_epoch', stop_epoch)):
            if value is not None:
                checked(f'{key}.{name}', non_negative_int, value)
        if stop_epoch is not None and stop_epoch <= start_epoch:
            raise ConfigError(f'{key}.stop_epoch: found {stop_epoch}, start_epoch is {start_epoch}; the term would '
                              'never act')
        checked(f'{key}.decay', one_of, decay, DECAYS)
        checked(f'{key}.decay_floor', at_most_one, floor)
        self.start, self.stop, self.decay, self.floor = start_epoch, stop_epoch, decay, float(floor)

    @property
    def is_constant(self) -> bool:
        return self.start == 0 and self.stop is None and self.decay is None

    def factor(self) -> float:
        """Of the step that is about to be taken."""
        if self.is_constant:
            return 1.0
        hub = MessageHub.get_current_instance()
        epoch = hub.get_info('epoch') or 0
        if epoch < self.start or (self.stop is not None and epoch >= self.stop):
            return 0.0
        if self.decay is None:
            return 1.0
        iteration, epochs, iterations = (hub.get_info(name) or 0 for name in ('iter', 'max_epochs', 'max_iters'))
        per_epoch = iterations / epochs if epochs else 0
        begin = self.start * per_epoch
        end = self.stop * per_epoch if self.stop is not None else iterations
        x = min(max((iteration - begin) / (end - begin), 0.0), 1.0) if end > begin else 0.0
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * x)) / 2

    def describe(self) -> str:
        """For the plan; empty for a constant."""
        if self.is_constant:
            return ''
        stop = 'the end' if self.stop is None else f'epoch {self.stop}'
        shape = '' if self.decay is None else f', falling by half a cosine to {self.floor:g}'
        return f'from epoch {self.start} to {stop}{shape}'
