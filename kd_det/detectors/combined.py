"""The class of a student that is taught: the student's own class and the distiller's, combined."""
import difflib
from typing import Any

from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from torch import nn

from ..build import check_arguments
from ..config import DISTILLED
from ..errors import ConfigError

_COMBINED: dict[tuple[type, type], type] = {}


def combined(preset: type, student: str | type | None) -> type:
    """The class of a student taught by ``preset``: both are its bases, and it is made once.

    Raises:
        ConfigError: ``student`` is missing, or no detector.
    """
    if student is None:
        raise ConfigError(f'model.student_type: missing, and {preset.__name__} stands where the student\'s own type '
                          'was: its class is not known here; add the type that the student\'s config has, e.g. '
                          'student_type=\'FasterRCNN\', or start with kd-det train, which reads it from _base_')
    if isinstance(student, str):
        with DefaultScope.overwrite_default_scope('mmdet'):
            found = MODELS.get(student)
        if found is None:
            raise ConfigError(f'model.student_type: {student!r} is not registered; the type in the student\'s own '
                              'config is expected')
        student = found
    if not (isinstance(student, type) and issubclass(student, nn.Module) and hasattr(student, 'extract_feat')) \
            or hasattr(student, 'preset'):
        raise ConfigError(f'model.student_type: {getattr(student, "__name__", student)} is no plain detector; the type '
                          'of the student\'s own config is expected')
    if (preset, student) not in _COMBINED:
        _COMBINED[preset, student] = type(f'{preset.__name__}[{student.__name__}]', (preset, student), dict(
            preset=preset, student_class=student, __module__=preset.__module__,
            __doc__=f'{student.__name__} taught by {preset.__name__}.'))
    return _COMBINED[preset, student]


def check_student(cls: type, args: tuple, student: dict) -> None:
    """What is left for the student's own class is what it takes.

    Args:
        cls: a class of :func:`combined`.
        args: positional arguments.
        student: keyword arguments that the distiller did not take.

    Raises:
        ConfigError: keys that neither takes, or that are missing.
    """
    if args:
        return
    try:
        check_arguments('model', student, cls.student_class)
    except ConfigError as error:
        preset = cls.preset.__name__
        added = DISTILLED[preset].added if preset in DISTILLED else ()
        close = [found for key in student for found in difflib.get_close_matches(key, added, n=1)]
        raise ConfigError(f'{error}.' + (f' Did you mean {close[0]!r}, which {preset} takes?' if close else '')
                          + f' What {preset} does not take is for student_type={cls.student_class.__name__!r}, which '
                          'must be the type in the student\'s own config') from None


def restored(preset: type, student: type) -> Any:
    """An empty object of the combined class, for copies and pickles."""
    return nn.Module.__new__(combined(preset, student))
