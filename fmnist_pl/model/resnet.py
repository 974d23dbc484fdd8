"""A net that is not of the study's kind, as an example: torchvision's ResNet-18.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", arXiv:1512.03385.
"""

from collections import OrderedDict

from torch import nn


def resnet18(num_classes: int) -> nn.Module:
    """ResNet-18 for images (B, 1, 28, 28): embeddings of 512 values, then a linear layer.

    Its first convolution is 3x3 and keeps the size, and there is no pooling after it, as is usual
    for small images. Weights are drawn as torchvision draws them.
    """
    from torchvision.models import resnet18

    whole = resnet18(num_classes=num_classes)
    first = nn.Conv2d(1, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    blocks = whole.layer1, whole.layer2, whole.layer3, whole.layer4
    features = nn.Sequential(first, whole.bn1, whole.relu, *blocks, whole.avgpool, nn.Flatten())
    return nn.Sequential(OrderedDict(features=features, head=whole.fc))
