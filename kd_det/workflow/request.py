"""What a user of ``kd-det distill`` asks for."""
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError


@dataclass
class Request:
    """The arguments of the command, checked.

    Attributes:
        teacher, checkpoint: config and checkpoint of the teacher; without a checkpoint it is trained here, from the
            weights that its config itself begins with.
        student: config of the plain student.
        out: folder for everything that is made.
        method: name of :data:`kd_det.workflow.methods.METHODS`; None: the first that suits.
        epochs, teacher_epochs: of the students, of the teacher's fine-tuning; None: by
            :func:`kd_det.workflow.schedule.schedule`. ``teacher_epochs=0`` takes the teacher as it is.
        batch_size: images a step; None: the student's config's.
        seed: of every training.
        amp: automatic mixed precision.
        options: ``--cfg-options`` of the student, dotted keys.
        onnx: export an ONNX file too.
        overwrite: replace what is there and differs.
        student_size: (width, height) of the student's images; None: its config's.
        teacher_scale: sides of the teacher's images over the student's.
    """

    teacher: str
    checkpoint: str | None
    student: str
    out: str
    method: str | None = None
    epochs: int | None = None
    teacher_epochs: int | None = None
    batch_size: int | None = None
    seed: int = 0
    amp: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    onnx: bool = False
    overwrite: bool = False
    student_size: tuple[int, int] | None = None
    teacher_scale: int = 1

    def __post_init__(self) -> None:
        for flag, least in (('epochs', 1), ('teacher_epochs', 0), ('batch_size', 1), ('teacher_scale', 1)):
            value = getattr(self, flag)
            if value is not None and value < least:
                raise ConfigError(f'--{flag.replace("_", "-")} {value}: at least {least}')
        if self.student_size is not None and min(self.student_size) < 32:
            raise ConfigError(f'--student-size {self.student_size[0]}x{self.student_size[1]}: at least 32x32')
