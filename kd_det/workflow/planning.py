"""From a request to stages: what is trained on what, how, how long, and why."""
import os
import os.path as osp
import shlex
import tempfile
from dataclasses import dataclass, field

from mmengine.config import Config

from ..config import check_model, distilled, load_config
from ..errors import ConfigError
from ..mydata.prepare import Prepared, texts, write_all
from ..sources.layers import probe_layers
from .anchors import Scale, anchor_scale
from .anchors import of_both as anchors_of_both
from .configs import (
    Places,
    data_key,
    distilled_text,
    identity,
    refuse_masks,
    student_text,
    teacher_text,
)
from .fine_tuning import Teacher, begins_with, built, of_classes, read_teacher, write_start
from .methods import METHODS, chosen, distil_model
from .request import Request
from .resolution import enlarged, set_size, test_pipeline, two_views
from .resolution import words as resolution_words
from .schedule import Schedule, schedule
from .stages import Making, Stage, Training


@dataclass
class Plan:
    """Everything that is decided before anything is written.

    Attributes:
        files: path -> text of data and configs.
        stages: in order.
        decisions: one line each, for the user.
        configs: 'teacher', 'student', 'distilled' -> resolved.
        teacher: as it comes; None: there is none yet, it is trained here.
        fine_tunes: the names of the teacher's tensors that start anew; None: it teaches as it comes, or is trained
            here.
        per_image: seconds of an evaluated image, by stage, where they were measured.
    """

    request: Request
    prepared: Prepared
    places: Places
    teacher: Teacher | None
    files: dict[str, str] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    configs: dict[str, Config] = field(default_factory=dict)
    fine_tunes: list[str] | None = None
    per_image: dict[str, float] = field(default_factory=dict)

    def write(self) -> None:
        """Write data, configs and the weights that fine-tuning starts from; what is there already is left alone.

        Raises:
            ConfigError, DataError: something of another content is there, and ``--overwrite`` is not given.
        """
        write_all(self.files, self.request.overwrite)
        if self.fine_tunes is not None:
            write_start(self.teacher, self.fine_tunes, self.places('teacher_start.pth'), self.request.overwrite)

    def describe(self, with_configs: bool = False) -> str:
        """The plan as text: the data, what was decided, the stages with their commands, and the configs if asked for.
        """
        lines = [self.prepared.describe(), '', *self.decisions, '']
        for i, stage in enumerate(self.stages, 1):
            time = '' if stage.seconds is None else f', about {duration(stage.seconds)}'
            lines += [f'{i}. {stage.name}: {stage.what}{time}', f'   kd-det {shlex.join(stage.command)}']
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        if known:
            lines.append(f'all stages: about {duration(sum(known))}, by a few steps measured on this machine; what a '
                         'command takes to start is not counted')
        if with_configs:
            for path, text in self.files.items():
                if path.endswith('.py'):
                    lines += ['', f'--- {path}', text.rstrip()]
        return '\n'.join(lines)


def duration(seconds: float) -> str:
    """Such as '40 s', '12 min', '3.5 h'."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def make_plan(request: Request, prepared: Prepared) -> Plan:
    """Decide everything; nothing is written.

    Raises:
        ConfigError, DataError, CheckpointMismatch: whatever stands against it, naming the argument or file.
    """
    student = _own('--student', request.student, request.options)
    teacher = _own('--teacher', request.teacher)
    _check_network('--student', student)
    if request.checkpoint is None:  # with one it is built when its weights are read
        _check_network('--teacher', teacher)
    refuse_masks(student, prepared)
    if request.student_size is not None:
        set_size(student, request.student_size, '--student-size')
    plan = Plan(request, prepared, Places(request.out),
                read_teacher(teacher, request.checkpoint) if request.checkpoint else None)
    _order_classes(plan)
    fine_tuning = _fine_tuning(plan)
    images = len(prepared.parts['train'].pictures)
    ours = schedule(student, images, request.epochs, request.batch_size)
    theirs = schedule(teacher, images, request.teacher_epochs or None,
                      request.batch_size or ours.batch) if fine_tuning else None
    scales, said = anchors_of_both(
        anchor_scale(student.model, test_pipeline(student), prepared.sides),
        anchor_scale(teacher.model, test_pipeline(enlarged(student, request.teacher_scale)), prepared.sides),
        fine_tuning)
    if plan.teacher is None:
        plan.decisions.append(f'teacher: no checkpoint is given; it is trained first, from {begins_with(teacher)}')
    elif fine_tuning:
        plan.fine_tunes = of_classes(teacher) if _differ(plan) else []
        plan.decisions.append(_taken_over(plan))
    plan.decisions += resolution_words(student, teacher, request.teacher_scale, fine_tuning)
    plan.decisions += said
    plan.decisions.append(f'student: {ours.text}')
    if theirs is not None:
        plan.decisions.append(f'teacher: {theirs.text}')
    _texts(plan, student, teacher, ours, theirs, scales)
    _stages(plan, ours, theirs)
    return plan


def _own(flag: str, path: str, options: dict | None = None) -> Config:
    cfg = load_config(path, options)
    check_model(cfg)
    if distilled(cfg.model) is not None:
        raise ConfigError(f'{flag} {path}: it is itself a distil config; give the plain detector\'s (kd-det export '
                          'makes plain files of a distilled one)')
    if not cfg.get('train_dataloader') or not cfg.get('val_dataloader'):
        raise ConfigError(f'{flag} {path}: it has no train_dataloader and val_dataloader, whose pipelines are needed')
    return cfg


def _check_network(flag: str, cfg: Config) -> None:
    """The plain detector can be built, and its parts fit each other; said of it, not of the methods that fail on it."""
    network = built(flag, cfg)
    try:
        probe_layers(network, ['backbone'])
    except ConfigError as error:
        raise ConfigError(f'{flag} {cfg.filename}: {error}') from error


def _order_classes(plan: Plan) -> None:
    """The same names in another order become the teacher's order: a label is a place in the list."""
    theirs, ours = plan.teacher and plan.teacher.classes, plan.prepared.classes
    if theirs and set(theirs) == set(ours) and list(theirs) != ours:
        plan.prepared.classes = list(theirs)
        plan.decisions.append(f'classes: in the teacher\'s order, {", ".join(theirs)}')


def _differ(plan: Plan) -> bool:
    return plan.teacher is None or plan.teacher.classes is None or list(plan.teacher.classes) != plan.prepared.classes


def _fine_tuning(plan: Plan) -> bool:
    """Whether the teacher is trained, further or at all.

    Raises:
        ConfigError: ``--teacher-epochs 0`` with a teacher of other classes, or without a checkpoint.
    """
    asked = plan.request.teacher_epochs
    if asked == 0 and plan.teacher is None:
        raise ConfigError(f'--teacher-epochs 0: the teacher {plan.request.teacher} has no checkpoint; give one, '
                          '--teacher CONFIG CHECKPOINT, or leave the flag out, so that it is trained first')
    if asked == 0 and plan.teacher.classes is not None and _differ(plan):
        raise ConfigError(f'--teacher-epochs 0: the teacher {plan.request.checkpoint} knows the classes '
                          f'{plan.teacher.classes}, the data has {plan.prepared.classes}; leave the flag out, so that '
                          'it is fine-tuned first')
    if asked == 0:
        return False
    return bool(asked) or _differ(plan)


def _taken_over(plan: Plan) -> str:
    names, total = plan.fine_tunes, len(plan.teacher.state)
    if not names:
        return f'teacher: fine-tuned from {plan.request.checkpoint}, all of its {total} tensors'
    known = 'does not say which classes it knows'
    if plan.teacher.classes:
        known = f'knows {len(plan.teacher.classes)} classes, which are not these {len(plan.prepared.classes)}'
    return f'teacher: {plan.request.checkpoint} {known}; it is fine-tuned first. {total - len(names)} of its {total} ' \
        f'tensors are taken over, those that hang on the classes start anew: {", ".join(names)}'


def _texts(plan: Plan, student: Config, teacher: Config, ours: Schedule, theirs: Schedule | None,
           scales: tuple[Scale | None, Scale | None]) -> None:
    """The files' texts, and the configs that they mean, read from copies in a folder of their own."""
    request, places = plan.request, plan.places
    data = data_key(plan.prepared, places)
    plan.files = {places('data', name): text for name, text in texts(plan.prepared).items()}
    with tempfile.TemporaryDirectory() as folder:
        def resolved(name: str, text: str) -> Config:
            plan.files[places.config(name)] = text
            copy = osp.join(folder, f'{name}.py')
            with open(copy, 'w', encoding='utf-8') as file:
                file.write(text)
            plan.configs[name] = load_config(copy)
            return plan.configs[name]
        seen = resolved('student', student_text(request, student, data, ours, scales[0]))
        times = request.teacher_scale
        taught = resolved('teacher', teacher_text(request, teacher, enlarged(seen, times), data, theirs, scales[1],
                                                  places('teacher_start.pth')))
        method = chosen(request.method, seen.model, taught.model, times)
        plan.decisions.append(f'method: {method}, {METHODS[method].what}'
                              + ('' if request.method
                                 else '; the default for such a pair, --method NAME takes another'))
        checkpoint = osp.join(places('teacher'), f'epoch_{theirs.epochs}.pth') if theirs else request.checkpoint
        if theirs is None and '://' not in checkpoint:
            checkpoint = osp.abspath(checkpoint)
        weights = identity(request.checkpoint) if request.checkpoint else begins_with(teacher)
        weights += f', fine-tuned: {theirs.text}' if theirs else ''
        source = dict(config=places.config('teacher'), checkpoint=checkpoint)
        views = None
        if times > 1:
            source['scale_factor'] = times
            views = two_views(seen.train_dataloader.dataset.to_dict(), times, '--teacher-scale')
        added = distil_model(method, seen.model, taught.model, source)
        resolved('distilled', distilled_text(added, METHODS[method].what, weights, views))


def _stages(plan: Plan, ours: Schedule, theirs: Schedule | None) -> None:
    places, configs = plan.places, plan.configs

    def training(name: str, what: str, times: Schedule) -> Training:
        every = configs[name].train_cfg.val_interval
        return Training(name, what, places.config(name), places(name), times.epochs, times.steps,
                        -(-times.epochs // every))
    trainings = [training('student', f'train the plain student, epochs: {ours.epochs}', ours),
                 training('distilled', f'train the distilled student, epochs: {ours.epochs}', ours)]
    if theirs is not None:
        doing = 'train' if plan.teacher is None else 'fine-tune'
        trainings.insert(0, training('teacher', f'{doing} the teacher, epochs: {theirs.epochs}', theirs))
    checkpoint = configs['distilled'].model.teacher.checkpoint
    teacher = places('teacher') if theirs else f'{places.config("teacher")}:{checkpoint}'
    results = [one.result for one in trainings]
    compare = ['compare', places('student'), places('distilled'), teacher, '--names', 'plain', 'distilled', 'teacher',
               '--eval', 'all', '--per-class', '--repeat', '20', '--html', places('report.html'),
               '--json', places('comparison.json')]
    export = ['export', places('distilled', os.path.basename(trainings[-1].result)), places('exported'), '--config',
              places.config('distilled'), *(['--onnx'] if plan.request.onnx else [])]
    plan.stages = [*trainings,
                   Making('compare', 'AP and cost of plain, distilled and teacher: report.html, comparison.json',
                          compare, places('comparison.json'), results),  # written last
                   Making('export', 'the distilled student as plain MMDetection files'
                          + (', and as a verified ONNX file' if plan.request.onnx else ''), export, places('exported'),
                          results[-1:])]
