"""The weights that the golden files were made with: drawn by rule, so that they need not be stored."""

import json

import numpy as np
import torch


def official_weights(keys_file, rule, seed):
    shapes = json.loads(keys_file.read_text())
    generator = np.random.default_rng(seed)
    norms = {key.rsplit(".", 1)[0] for key in shapes if key.endswith("running_mean")}
    weights = {}
    for key in sorted(shapes):
        shape, (prefix, leaf) = shapes[key], key.rsplit(".", 1)
        if leaf == "num_batches_tracked":
            weights[key] = torch.tensor(0)
            continue
        if rule == "A" and prefix in norms:
            value = np.ones(shape) if leaf in ("weight", "running_var") else np.zeros(shape)
        else:
            z = generator.standard_normal(shape)
            if rule == "A":
                value = 0.05 * z
            elif prefix in norms:
                value = {"weight": 1 + 0.1 * z, "running_var": 1 + 0.2 * abs(z)}.get(leaf, 0.1 * z)
            else:
                value = z * np.sqrt(2 / np.prod(shape[1:])) if len(shape) >= 2 else 0.1 * z
        weights[key] = torch.from_numpy(value.astype(np.float32))
    return {key: weights[key] for key in shapes}
