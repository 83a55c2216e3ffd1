"""Images without labels: a second batch in every step, on which what needs no ground truth is taught."""
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ..arguments import non_negative
from ..build import checked
from ..errors import ConfigError
from ..sources.layers import part_of
from ..terms.step import UnlabelledStep
from ..terms.term import Term

PREFIX = 'unlabelled.'
PROPOSALS = 512
"""For each image, where the student's RoI head does not say how many RoIs it samples."""


class Unlabelled:
    """The part of a step on images without labels::

        L = L(labelled batch) + weight * sum over terms that need no ground truth of L_term(unlabelled batch)

    The student's own loss never sees these images, so none of them counts as background; what a data set says about
    objects in them is taken out before any term looks. The student's batch norms see both batches, one after the other.
    Losses are logged with ``unlabelled.`` before their names.

    Which terms act follows from the terms: hints (all but FGD's), BCKD, CrossKD, soft labels, LD's valuable region,
    pseudo-labels, Chen's soft class losses at the teacher's proposals. ``images='labelled'`` or ``'unlabelled'`` of a
    term restricts it. RoIs are the proposals of the teacher of the first term that looks at the box heads.

    The run's ``unlabelled_dataloader`` brings the batches, one for each labelled one
    (:class:`kd_det.engine.unlabelled_hook.UnlabelledHook`).

    Args:
        weight (float): of everything on these images; 0: they are not even read.

    Raises:
        ConfigError: no term can act on them.

    Source: Chen et al. 2020 (SimCLRv2, arXiv 2006.10029), section 2 (distillation on unlabelled examples); Hinton et
    al. 2015, section 2 (unlabelled transfer set).
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = float(checked('model.unlabelled.weight', non_negative, weight))
        self._batch: dict | None = None
        self.images: list = []
        """What samples of the last step say of their images, for messages."""

    def take(self, batch: dict) -> None:
        """The batch of the coming step, as the data loader made it."""
        self._batch = batch

    def __getstate__(self) -> dict:
        return {**vars(self), '_batch': None, 'images': []}

    def acting(self, terms: Iterable[Term]) -> list[Term]:
        """The terms that act on images without labels."""
        return [term for term in terms if term.acts_on(labelled=False)] if self.weight else []

    def losses(self, model: nn.Module, factors: dict[Term, float]) -> dict[str, Tensor]:
        """What is taught on the batch that :meth:`take` was given.

        Args:
            model: the distiller.
            factors: of each term's schedule; 0: it rests.

        Raises:
            RuntimeError: no batch was given.
        """
        batch, self._batch = self._batch, None
        active = [term for term in self.acting(model.terms) if factors[term]]
        if not active:
            return {}
        if batch is None:
            raise RuntimeError('a step without a batch of unlabelled images; UnlabelledHook takes one from '
                               'unlabelled_dataloader')
        data = model.data_preprocessor(batch, True)
        self.images = [sample.new(data={}) for sample in data['data_samples']]
        step = self._step(model, data['inputs'], data['data_samples'], active)
        model.offer_sources(step, active)
        try:
            losses = {PREFIX + name: value * (self.weight * factors[term]) if 'loss' in name else value
                      for term in active for name, value in term.unlabelled_losses(step).items()}
            model._watch.see(step, active)
        finally:
            step.close()
        return losses

    @staticmethod
    def _step(model: nn.Module, inputs: Tensor, samples: list, active: list[Term]) -> UnlabelledStep:
        layers = [path for term in active for path in term.layers()[0]]
        whole = any(not term.layers()[0] for term in active) or any(part_of(path) != 'backbone' for path in layers)
        proposer = next((term.source for term in active if looks_at_rois(term)), None)
        sampler = getattr(getattr(model, 'roi_head', None), 'bbox_sampler', None)
        sampler = sampler[0] if isinstance(sampler, (list, nn.ModuleList)) else sampler
        return UnlabelledStep(model, inputs, samples, {path: model.layer_shapes[path] for path in layers}, whole,
                              proposer, model.sources[proposer].scale_factor if proposer else 1,
                              getattr(sampler, 'num', PROPOSALS))

    def describe(self, terms: Iterable[Term]) -> list[str]:
        """Lines of the plan."""
        if not self.weight:
            return ['images without labels: weight 0, they are not read']
        lines = [f'images without labels: weight {self.weight:g}, one batch of unlabelled_dataloader a step; the '
                 'student\'s own loss does not see them']
        for term in terms:
            names = ', '.join(term.names())
            if term.acts_on(labelled=False):
                where = 'act on both' if term.acts_on(labelled=True) else 'act on unlabelled images only'
                lines.append(f'    {term.key}: {", ".join(term.unlabelled_names())} {where}')
            else:
                why = f', which it needs: {term.needs_labels}' if term.needs_labels else ''
                lines.append(f'    {term.key}: {names or type(term).__name__} on images with labels only{why}')
        return lines


def looks_at_rois(term: Term) -> bool:
    """Whether a term compares something for each RoI."""
    return term.of_rois or any(part_of(path) == 'roi_head' for side in term.layers() for path in side)


def logged_names(term: Term, unlabelled: Unlabelled | None) -> list[str]:
    """Names of a term's losses in the log, those on images without labels among them.

    Raises:
        ConfigError: it is meant for such images, and there are none.
    """
    names: list[Any] = term.names() if term.acts_on(labelled=True) else []
    if unlabelled is None:
        if term.images == 'unlabelled':
            raise ConfigError(f'{term.key}.images: found \'unlabelled\', and there are no such images; add '
                              'model.unlabelled=dict(weight=1.) and an unlabelled_dataloader')
        return names
    return names + [PREFIX + name for name in (term.unlabelled_names() if term in unlabelled.acting([term]) else [])]
