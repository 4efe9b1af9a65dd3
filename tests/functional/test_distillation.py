"""Distillation: recorded official numbers, a plain loop from the definitions, derivatives."""

import math

import pytest
import torch

from fieldmark.errors import FieldmarkError
from fieldmark.functional import contrastive_distillation, knowledge_distillation


@pytest.fixture
def arrays(golden):
    return {key: torch.from_numpy(array) for key, array in golden("scl_distill_a").items()}


@pytest.mark.parametrize("temperature", [4, 1])
def test_divergence_is_the_official_one(arrays, temperature):
    student = arrays["logits_student"].requires_grad_()
    loss = knowledge_distillation(student, arrays["logits_teacher"], float(temperature))
    torch.testing.assert_close(loss, arrays[f"kl_T{temperature}"], rtol=1e-5, atol=1e-5)
    loss.backward()
    torch.testing.assert_close(student.grad, arrays[f"kl_T{temperature}_grad_student"], rtol=1e-4, atol=1e-6)


def test_distances_are_the_official_ones(arrays):
    pooled = arrays["global_student"].requires_grad_()
    loss = contrastive_distillation(pooled, arrays["global_teacher"])
    torch.testing.assert_close(loss, arrays["cd_global"], rtol=1e-5, atol=1e-5)
    loss.backward()
    torch.testing.assert_close(pooled.grad, arrays["cd_global_grad_student"], rtol=1e-4, atol=1e-6)
    maps = arrays["spatial_student"].requires_grad_()
    loss = contrastive_distillation(maps.flatten(2).mT, arrays["spatial_teacher"].flatten(2).mT)
    torch.testing.assert_close(loss, arrays["cd_spatial"], rtol=1e-5, atol=1e-5)
    loss.backward()
    torch.testing.assert_close(maps.grad, arrays["cd_spatial_grad_student"], rtol=1e-4, atol=1e-6)


def test_divergence_equals_its_definition():
    student, teacher = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for one, other in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = ([math.exp(x / 2) / sum(math.exp(y / 2) for y in row) for x in row] for row in (other, one))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(knowledge_distillation(student, teacher, 2.0)) == pytest.approx(4 * total / 3, abs=1e-12)


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4)])
def test_distance_equals_its_definition(shape):
    student, teacher = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = list(zip(student.view(-1, 4).tolist(), teacher.view(-1, 4).tolist(), strict=True))
    total = sum(
        sum((a / math.hypot(*one) - b / math.hypot(*other)) ** 2 for a, b in zip(one, other, strict=True))
        for one, other in pairs
    )
    assert float(contrastive_distillation(student, teacher)) == pytest.approx(total / len(pairs), abs=1e-12)


@pytest.mark.parametrize("function", [knowledge_distillation, contrastive_distillation])
def test_derivatives_reach_the_student_alone(function):
    student, teacher = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: function(one, teacher), student)
    teacher.requires_grad_()
    function(student, teacher).backward()
    assert teacher.grad is None


def test_half_precision_is_computed_in_float32():
    student, teacher = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    for function in (knowledge_distillation, contrastive_distillation):
        torch.testing.assert_close(function(student, teacher), function(student.float(), teacher.float()))


@pytest.mark.parametrize(
    ("function", "student", "teacher", "text"),
    [
        (knowledge_distillation, (2, 3), (2, 4), r"expected both \(B, K\)"),
        (knowledge_distillation, (2, 3, 4), (2, 3, 4), r"expected both \(B, K\)"),
        (contrastive_distillation, (2, 3), (2, 3, 3), r"expected both \(B, C\) or \(B, N, C\)"),
        (contrastive_distillation, (0, 3), (0, 3), "nothing to compare"),
    ],
)
def test_wrong_shapes_are_one_line(function, student, teacher, text):
    plain = getattr(function, "__wrapped__", function)
    with pytest.raises(FieldmarkError, match=text) as caught:
        plain(torch.zeros(student), torch.zeros(teacher))
    assert "\n" not in str(caught.value)


def test_wrong_temperature_is_one_line():
    with pytest.raises(FieldmarkError, match="temperature is 0"):
        knowledge_distillation(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)
