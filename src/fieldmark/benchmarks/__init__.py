"""Speed against the peers, both sides in the same run: ``fieldmark bench``. Results lie in the folder benchmarks/."""

#: What is measured, by the name of the module that does it.
BENCHMARKS = {
    "episodes": "episodes scored a second: prototype against easyfsl, logistic regression against scikit-learn",
    "training": "images trained a second: our step against a plain PyTorch loop with loader workers",
    "allocation": "images encoded and trained a second: freed memory kept, against the C library as it is, with memory",
    "augmentation": "images augmented a second: ours against torchvision and kornia",
    "transport": "transport problems solved a second: ours against OpenCV, POT and QPTH; DeepEMD's layer and heads",
    "contrastive": "training steps of the spatial similarity a second: ours against the official formulas, with memory",
    "gallery": "searches a second: the index against all photos, with recall; photos enrolled and predicted a second",
    "lssa": "episodes of the spatial alignment a second: ours against all pairs materialised, with memory",
    "apinet": "pairs mined a second: ours against loops over images; steps with cached gradients, with memory",
    "ssanet": "scale responses a second: FFT against directly; inference with shared against re-extracted features",
    "efficiency": "images a second through ResNet-12 against the floor of its multiplications; loading beside training",
}
