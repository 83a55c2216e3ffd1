"""Where a teacher's answers are recorded, and how."""
from ..arguments import byte_size, one_of
from ..build import checked
from ..errors import ConfigError


class Record:
    """Where answers are recorded, and how.

    Args:
        folder (str): of the shards; several runs and machines may share it.
        max_disk (int | str): bytes, or a size such as '20GB'; the folder does not grow beyond, and what has no place is
            asked of the live teacher each time.
        missing (str): 'record' asks the live teacher for what is missing and writes it down, so that the first epoch
            records and later ones read; 'error' stops the run, naming the image (a folder that ``kd-det record``
            filled).
    """

    def __init__(self, folder: str, max_disk: int | str = '20GB', missing: str = 'record', key: str = 'record') -> None:
        if not isinstance(folder, str) or not folder:
            raise ConfigError(f'{key}.folder: found {folder!r}; a folder is expected')
        self.folder = folder
        self.max_bytes = checked(f'{key}.max_disk', byte_size, max_disk)
        self.missing = checked(f'{key}.missing', one_of, missing, ('record', 'error'))
