"""The errors that kd_det raises by name. Each message says what was found where, and what would do."""


class ConfigError(ValueError):
    """A config that cannot mean what its author meant; the message names the key."""


class DataError(ConfigError):
    """A data set that cannot be trained or evaluated on as configured; the message names key, file and remedy."""


class CheckpointMismatch(RuntimeError):
    """A checkpoint that does not hold the network it is loaded into; the message lists the keys."""


class TrainingDiverged(RuntimeError):
    """The loss or the weights of a run are not finite; the message names terms, images and what was saved."""


class AssignmentMismatch(RuntimeError):
    """Teacher and student were not asked the same question; the message says what differs."""


class CompareError(ValueError):
    """A comparison that cannot be made as asked; the message says why and what would do."""


class StudyError(ValueError):
    """A study that cannot be run or shown as asked; the message says why and what would do."""
