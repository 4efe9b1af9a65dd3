"""What a student learns from a teacher: its class probabilities, and where it puts the images."""

from __future__ import annotations

import torch
from torch.nn.functional import kl_div

from fieldmark.errors import FieldmarkError
from fieldmark.functional.normalisation import l2_normalise
from fieldmark.shapes import Float, Tensor


def knowledge_distillation(
    student_logits: Float[Tensor, "B K"], teacher_logits: Float[Tensor, "B K"], temperature: float = 4.0
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of the student's class probabilities from the teacher's, both softened.

    Source: Hinton et al. 2015; SCL (Ouali et al. 2021), section 3.4: ``T^2 * mean_b KL(teacher || student)`` of the
    softmax of logits divided by T. (The factor T^2, which keeps the size of the gradient, is in the official code and
    not in the paper.)

    Args:
        student_logits: Class scores.
        teacher_logits: Likewise; taken as constants.
        temperature: T; 4 in the paper.

    Raises:
        FieldmarkError: For shapes that differ, no image, or a temperature that is not positive.

    Example:
        >>> knowledge_distillation(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
        tensor(1.9593)
    """
    _check("student_logits", student_logits, "teacher_logits", teacher_logits, 2, "(B, K)")
    if not temperature > 0:
        raise FieldmarkError(f"temperature is {temperature}; expected a positive number, 4 in the paper")
    student = _full(student_logits).div(temperature).log_softmax(-1)
    teacher = _full(teacher_logits).detach().div(temperature).log_softmax(-1)
    return kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def contrastive_distillation(student: Float[Tensor, "B *N C"], teacher: Float[Tensor, "B *N C"]) -> Float[Tensor, ""]:
    """Mean squared distance of the student's features from the teacher's, all brought to unit length.

    Source: SCL (Ouali et al. 2021), eq. 10 for pooled features (B, C), the spatial term of eq. 12 for maps (B, N, C):
    ``mean ||z_teacher - z_student||^2``, from 0 to 4. For maps the mean runs over the locations too, as in the official
    code; the paper has the norm over the whole map.

    Args:
        student: Pooled features, or the features of N locations.
        teacher: Likewise; taken as constants.

    Raises:
        FieldmarkError: For shapes that differ, or nothing to compare.

    Example:
        >>> contrastive_distillation(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(2.)
    """
    _check("student", student, "teacher", teacher, 0, "(B, C) or (B, N, C)")
    distance = l2_normalise(_full(student)) - l2_normalise(_full(teacher).detach())
    return distance.square().sum(-1).mean()


def _full(features: Tensor) -> Tensor:
    """Half precision becomes float32."""
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def _check(name: str, student: Tensor, other: str, teacher: Tensor, dimensions: int, expected: str) -> None:
    """Refuse what cannot be compared number by number."""
    shapes = f"{name} is {tuple(student.shape)} and {other} {tuple(teacher.shape)}"
    if student.shape != teacher.shape or student.dim() < 2 or (dimensions and student.dim() != dimensions):
        raise FieldmarkError(f"{shapes}; expected both {expected}")
    if student.numel() == 0:
        raise FieldmarkError(f"{shapes}; there is nothing to compare")
