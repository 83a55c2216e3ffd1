"""A distiller's terms from its config: built, examined with their sources, and connected."""
from typing import Any

from mmdet.registry import MODELS
from torch import nn

from ..build import build
from ..errors import ConfigError
from ..sources import Ensemble, RecordedTeacher
from ..sources.build import build_ensemble
from ..sources.layers import probe_layers
from ..terms.term import Term
from .unlabelled import logged_names


def build_terms(model: nn.Module, cfgs: list[tuple[str, dict]]) -> list[Term]:
    """The terms of ``model`` that are on. No random number of the student's is drawn by it.

    Args:
        model: the distiller, with its ``sources``; an ensemble that a term asks for by a list of names is added there,
            and what layers return becomes its ``layer_shapes``.
        cfgs: (config key, config) of every term.

    Raises:
        ConfigError: what is no term; a source that is not there or of another kind; two terms of one name; no loss at
            all; whatever a term cannot do with its student and source.
    """
    built = [term for key, cfg in cfgs if not (term := _built(model, key, cfg)).off]
    for term in built:
        source = model.sources[term.source]
        (term.check_members if isinstance(source, Ensemble) else term.check)(model, source)
    for name, source in model.sources.items():
        if isinstance(source, RecordedTeacher):
            source.asked_by(model.reached(name, built))
    _probe(model, built)
    for term in built:
        term.connect(model, model.sources[term.source])
    _check_names(model, built)
    return built


def _built(model: nn.Module, key: str, cfg: Any) -> Term:
    term = build(key, _one_source(model, key, cfg), MODELS, key=key)
    if not isinstance(term, Term):
        raise ConfigError(f'{key}.type: {type(term).__name__} is no term of distillation')
    source = model.sources.get(term.source)
    if source is None or source.trains != (term.source_kind == 'peer'):
        fitting = [name for name, one in model.sources.items() if one.trains == (term.source_kind == 'peer')]
        raise ConfigError(f'{key}.source: {term.source!r} is no source of the kind that {type(term).__name__} learns '
                          f'from; there are {fitting}'
                          + ('' if model.sources else '; add teacher=dict(config=..., checkpoint=...)'))
    if isinstance(source, Ensemble) and not term.takes_several:
        raise ConfigError(f'{key}.source: {type(term).__name__} learns from one teacher, {term.source!r} is an '
                          f'ensemble; name one of {list(source.members)}')
    return term


def _one_source(model: nn.Module, key: str, cfg: Any) -> Any:
    """A term's config with one name as its ``source``: a list of names means an ensemble of them."""
    names = cfg.get('source') if isinstance(cfg, dict) else None
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return cfg
    name = '+'.join(names)
    if name not in model.sources:
        model.sources[name] = build_ensemble(model, f'{key}.source', dict(members=list(names)), model.sources)
    return dict(cfg, source=name)


def _probe(model: nn.Module, terms: list[Term]) -> None:
    """Find out what the layers that terms compare return, with one test image for each network."""
    ours = dict.fromkeys(path for term in terms for path in term.layers()[0])
    model.layer_shapes = probe_layers(model, list(ours))
    for name, source in sorted(model.sources.items(), key=lambda item: isinstance(item[1], Ensemble)):
        theirs = dict.fromkeys(path for term in model.reached(name, terms) for path in term.layers()[1])
        if theirs:
            source.probe(list(theirs))


def _check_names(model: nn.Module, terms: list[Term]) -> None:
    """Every loss has a name of its own, and there is one."""
    logged = {term: logged_names(term, model.unlabelled) for term in terms}
    names = [name for term in terms for name in logged[term]]
    for name in names:
        if names.count(name) > 1:
            where = [term.key for term in terms if name in logged[term]]
            raise ConfigError(f'{where[-1]}.name: {where[0]} logs {name} too; give one of them a name=\'...\'')
    if not model.ground_truth and not names:
        raise ConfigError('model.ground_truth: False, and no term is on: the student would have no loss; '
                          'set ground_truth=True or a weight')
