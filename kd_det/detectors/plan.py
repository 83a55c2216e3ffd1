"""What a distiller teaches where, in words."""
from torch import nn


def plan_of(model: nn.Module) -> list[str]:
    """Lines about the student, its sources and terms, and what is off."""
    trained = sum(p.numel() for p in model.terms.parameters())
    whole = sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in getattr(model, 'peer_network', nn.Module()).parameters())
    lines = [f'student {type(model).student_class.__name__} ({(whole - trained) / 1e6:.2f} M parameters'
             + (f', and {trained / 1e6:.3f} M that the terms train' if trained else '') + ')']
    for source in model.sources.values():
        lines += source.describe()
    for term in model.terms:
        lines += term.describe()
    if not model.ground_truth:
        lines.append('ground truth: the student\'s own losses are off (ground_truth=False)')
    if model.unlabelled is not None:
        lines += model.unlabelled.describe(model.terms)
    if not any(term.teaches() for term in model.terms):
        lines.append('NOTHING IS DISTILLED: every term is off or has weight 0')
    return lines
