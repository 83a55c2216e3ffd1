"""The names under which kd_det's modules appear in MMDetection's registries.

Losses, adapters and the mixture fit import nothing but torch, so they cannot decorate themselves; one list here does it
for all of them, and is the place to look a config's ``type`` up.
"""


def register() -> None:
    """Register every kd_det module once; a name that somebody else holds is an error, never an override."""
    from mmdet.registry import DATA_SAMPLERS, DATASETS, HOOKS, MODELS, TASK_UTILS

    from . import adapters, backbones, datasets, detectors, engine, heads, losses, terms
    from .assignment import criteria, ignoring

    entries = [
        (DATA_SAMPLERS, (datasets.SourceRatioSampler,)),
        (MODELS, (losses.SoftTargetLoss, losses.LogitMatchingLoss, losses.TeacherBoundedLoss, losses.BoxMimicryLoss,
                  losses.HintLoss, losses.FocalKLLoss, losses.ModulatedBCELoss, losses.SoftBCELoss,
                  losses.DistributionKLLoss, losses.PKDLoss, losses.CWDLoss, losses.FGDLoss, losses.MGDLoss,
                  losses.CosineLoss)),
        (MODELS, (adapters.ConvAdapter, adapters.LinearAdapter, adapters.IdentityAdapter)),
        (MODELS, (detectors.Distiller, detectors.FasterRCNNDistiller, detectors.LADDistiller,
                  detectors.SoftLabelDistiller, detectors.CoLAD)),
        (MODELS, (terms.Hint, terms.RPNDistillation, terms.RCNNDistillation, terms.SoftLabel, terms.LabelAssignment,
                  terms.CoLearning, terms.ClassBalancedDistillation, terms.BCKD, terms.LD, terms.CrossHead,
                  terms.PseudoLabel)),
        (MODELS, (backbones.TimmBackbone,)),
        (MODELS, (heads.BatchedPAAHead, heads.COPHead)),
        (TASK_UTILS, (criteria.StdMeanCriterion, criteria.FisherCriterion, criteria.MeanCostCriterion,
                      criteria.FixedCriterion, criteria.RandomCriterion, ignoring.IgnoringAssigner)),
        (DATASETS, (datasets.TwoViewDataset, datasets.UnlabelledImages, datasets.ScoredCocoDataset)),
        (HOOKS, (engine.DistillHook, engine.CoLADHook, engine.PeerValidationHook, engine.InterruptHook,
                 engine.RecordHook, engine.WholeCheckpointHook, engine.ScoreWeightHook)),
    ]
    for registry, classes in entries:
        for cls in classes:
            if registry.module_dict.get(cls.__name__) is not cls:
                registry.register_module(module=cls)
    engine.attach_to_runner()
