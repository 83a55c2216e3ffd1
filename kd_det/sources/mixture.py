"""The mean of several teachers' probabilities, as logits: plain tensors in, plain tensors out."""
import math

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax_mixture(answers: list[Tensor], weights: Tensor, maps: list[list[int] | None]) -> Tensor:
    """Logits of the weighted mean of class distributions, the background last::

        p(c)  = sum over members m that know c of w_m(c) p_m(c) / sum of these w_m(c)
        p(bg) = sum over m of w_m(bg) p_m(bg), w_m(bg) the mean of m's share over classes   every member knows all
        p(bg) = 1 - sum over c of p(c), at least 0                                          otherwise

    divided by their sum where they do not add up to 1 (weights that differ between classes). A member that does not
    know a class calls its objects background, so its background is no background where others know more.

    Args:
        answers: logits (R, C_m + 1) of each member.
        weights: (M, R or 1, C), not negative; 0 where a member does not know the class.
        maps: of each member, the index among the C classes of each class that it knows; None: it knows all, in order.

    Returns:
        (R, C + 1) log-probabilities; a class that nobody knows has probability 0 (finite, about -88).

    Source: Hinton et al. 2015 (arithmetic mean of the members' distributions, at T = 1).
    """
    classes = weights.shape[-1]
    total = weights.sum(0)                                                                # (R or 1, C)
    share = weights / total.clamp(min=torch.finfo(weights.dtype).tiny)                    # (M, R or 1, C)
    tiny = torch.finfo(torch.float32).tiny
    probabilities = [F.softmax(answer.float(), dim=1) for answer in answers]              # (R, C_m + 1)
    objects = sum(w * _placed(p[:, :-1], classes, where) for w, p, where in zip(share, probabilities, maps))  # (R, C)
    if all(where is None for where in maps):
        counted = (total > 0).sum(-1).clamp(min=1)  # classes that no weight is given to have no share to count
        background = sum(w.sum(-1) / counted * p[:, -1] for w, p in zip(share, probabilities))  # (R,)
    else:
        background = (1 - objects.sum(1)).clamp(min=0)
    mean = torch.cat([objects, background[:, None]], 1)                                   # (R, C + 1)
    return (mean / mean.sum(1, keepdim=True).clamp(min=tiny)).clamp(min=tiny).log()


def sigmoid_mixture(answers: list[Tensor], weights: Tensor, maps: list[list[int] | None]) -> Tensor:
    """Logits of the weighted mean of independent probabilities::

        p(c) = sum over members m that know c of w_m(c) p_m(c) / sum of these w_m(c)

    Args:
        answers: logits (R, C_m) of each member.
        weights: (M, R or 1, C), not negative; 0 where a member does not know the class.
        maps: as for :func:`softmax_mixture`.

    Returns:
        (R, C) logits, exact in both tails; of a class that nobody knows 0, which is to be left out.
    """
    classes = weights.shape[-1]
    share = weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)
    placed = [_placed(answer.float(), classes, where) for answer, where in zip(answers, maps)]    # (R, C) each
    log_share = share.log()                                                                       # -inf at weight 0
    yes = torch.logsumexp(torch.stack([F.logsigmoid(z) + w for z, w in zip(placed, log_share)]), 0)
    no = torch.logsumexp(torch.stack([F.logsigmoid(-z) + w for z, w in zip(placed, log_share)]), 0)
    return torch.where(weights.sum(0) > 0, yes - no, torch.zeros_like(yes))


def any_of(answers: list[Tensor]) -> Tensor:
    """Logits that at least one of several says yes, independently: p = 1 - prod over m of (1 - p_m)."""
    no = sum(F.logsigmoid(-answer.float()) for answer in answers)
    # log p = log(1 - exp(no)), in the form that is exact for small and for large p
    yes = torch.where(no > -math.log(2), torch.log(-torch.expm1(no).clamp(max=-1e-38)), torch.log1p(-no.exp()))
    return yes - no


def confidence_weights(answers: list[Tensor], use_sigmoid: bool, temperature: float) -> Tensor:
    """How much each member counts for each object::

        a_m = softmax over m of k_m / tau,   k_m = 1 - H(p_m) / log(number of columns)      softmax heads
                                             k_m = max over c of |2 p_m(c) - 1|             sigmoid heads

    A flat distribution has k = 0, a certain one 1. The idea (the senior weighs its teachers object by object, by how
    sharply each decides) is MulDE's contrastive attention carried over; the formula is ours.

    Args:
        answers: logits (R, C_m + 1) or, sigmoid, (R, C_m) of M members.
        use_sigmoid: how they become probabilities.
        temperature: tau > 0; large: equal weights, small: the surest member alone.

    Returns:
        (M, R, 1), adding up to 1 over members.

    Source: after Wang et al. 2021 (MulDE, arXiv 2010.07152), section on the senior.
    """
    sure = torch.stack([certainty(answer, use_sigmoid) for answer in answers])  # (M, R)
    return F.softmax(sure / temperature, dim=0).unsqueeze(-1)


def certainty(logits: Tensor, use_sigmoid: bool) -> Tensor:
    """How decided each row of logits (R, columns) is, (R,) in [0, 1]: k of :func:`confidence_weights`."""
    if use_sigmoid:
        return (2 * logits.float().sigmoid() - 1).abs().amax(1)
    log_p = F.log_softmax(logits.float(), dim=1)
    return 1 + (log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])


def known_only(logits: Tensor, known: Tensor | None, use_sigmoid: bool) -> Tensor:
    """Logits without the columns of classes that no teacher knows.

    Softmax: what is left over is one event, background or unknown class; the logit of an unknown class takes part as a
    constant, so that it has no gradient and is not pushed to the background::

        z'(bg) = log(exp z(bg) + sum over unknown c of exp z(c) (constant))

    Args:
        logits: (R, C + 1), the background last, or, sigmoid, (..., C).
        known: (C,) bool; None: all.
    """
    if known is None:
        return logits
    known = known.to(logits.device)
    if use_sigmoid:
        return logits[..., known]
    objects, background = logits[:, :-1], logits[:, -1:]
    rest = torch.logsumexp(torch.cat([background, objects[:, ~known].detach()], 1), 1, keepdim=True)
    return torch.cat([objects[:, known], rest], 1)


def _placed(columns: Tensor, classes: int, where: list[int] | None) -> Tensor:
    """(R, C_m) -> (R, C): each column at the place of its class, 0 elsewhere."""
    if where is None:
        return columns
    return columns.new_zeros(len(columns), classes).index_copy(1, torch.tensor(where, device=columns.device), columns)
