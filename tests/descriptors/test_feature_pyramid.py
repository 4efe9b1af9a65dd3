import pytest
import torch

from fieldmark import descriptors
from fieldmark.errors import FieldmarkError


@pytest.mark.parametrize("levels", [(2, 1), (2,), (3, 2, 1)])
def test_the_official_pyramid(golden, levels):
    arrays = golden("deepemd_pyramid_a")
    found = descriptors.create("feature_pyramid", levels=levels).nodes(torch.from_numpy(arrays["feature"]))
    expected = torch.from_numpy(arrays["out_" + "_".join(map(str, levels))])[:, :, 0].transpose(1, 2)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-6


def test_nodes_are_means_of_their_places():
    maps = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    found = descriptors.create("feature_pyramid", levels=[2]).nodes(maps)
    for row in range(2):
        for column in range(2):
            cell = maps[:, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
            torch.testing.assert_close(found[:, 2 * row + column], cell.mean((2, 3)))
    torch.testing.assert_close(found[:, 4], maps[:, :, 0, 0])


def test_a_level_larger_than_the_map_is_refused():
    with pytest.raises(FieldmarkError, match=r"levels .* are \[3, 1\], but the map has 2 x 4 places") as caught:
        descriptors.create("feature_pyramid", levels=(3, 1)).nodes(torch.zeros(1, 2, 2, 4))
    assert "\n" not in str(caught.value)
