"""Which losses to try first where there is no time for all: the widely used ones and one of each idea, task by task.

The order is a judgement, not a measurement: what is used in practice comes before what few have tried, and a new idea
before a second form of one that is listed.
"""

from __future__ import annotations

CLASSES = (
    "cross_entropy",
    "label_smoothing",
    "focal",
    "symmetric_cross_entropy",
    "class_balanced",
    "bce_ovr",
    "poly1",
    "balanced_softmax",
    "ngl",
    "generalized_cross_entropy",
    "hinge_cs",
    "brier",
    "arcface",
    "ldam",
    "wasserstein",
    "asymmetric_ovr",
    "ghm_c_ovr",
    "center_cross_entropy",
    "pf_loss_r1",
)
PIXELS = (
    "cross_entropy",
    "cross_entropy_dice",
    "dice",
    "focal",
    "lovasz_softmax",
    "tversky",
    "focal_tversky",
    "generalized_dice",
    "weighted_cross_entropy",
    "bce_dice",
    "boundary",
    "combo",
    "jaccard",
    "log_cosh_dice",
    "label_smoothing",
    "ngl",
    "poly1",
    "exponential_logarithmic",
)
BOXES = (
    "giou",
    "smooth_l1",
    "ciou",
    "iou",
    "diou",
    "mae",
    "eiou",
    "siou",
    "nwd",
    "focal_eiou",
    "alpha_iou",
    "mpdiou",
    "inner_iou",
    "balanced_l1",
    "mse",
)
EMBEDDINGS = (
    "contrastive",
    "supervised_contrastive",
    "multi_similarity",
    "triplet_semi_hard",
    "proxy_anchor",
    "arcface",
    "cosface",
    "normface",
    "cross_entropy",
    "triplet",
    "subcenter_arcface",
    "center_cross_entropy",
    "curricularface",
    "adaface",
)
NUMBERS = ("mse", "huber", "mae", "log_cosh", "gaussian_nll", "quantile")
LABELS = ("binary_cross_entropy", "asymmetric", "binary_focal", "balanced_cross_entropy", "ghm_c", "hinge")
BY_TASK = {
    "classification": CLASSES,
    "scaled_classification": CLASSES,
    "mixed_classification": CLASSES,
    "table_classification": CLASSES,
    "segmentation": PIXELS,
    "segmentation_windows": PIXELS,
    "embedding": EMBEDDINGS,
    "localisation": BOXES,
    "regression": NUMBERS,
    "multilabel": LABELS,
}


def of(task: str) -> tuple[str, ...]:
    """Return the names of the losses to try first, the most used one first; none where no order is known.

    Not every task of a kind can train all of them: mixed images have no class whose centre could be learnt.

    Args:
        task: option of conf/task with one loss; where there are several, one says which ones are to race.

    >>> of("segmentation")[:3]
    ('cross_entropy', 'cross_entropy_dice', 'dice')
    """
    return BY_TASK.get(task, ())
