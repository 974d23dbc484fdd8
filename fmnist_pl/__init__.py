"""Six Fashion-MNIST classifiers on one protocol, in PyTorch Lightning and Hydra."""
