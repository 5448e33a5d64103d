"""The network of the notes: torchvision's ResNet-18 with three changes for 32x32 images."""

from torch import nn
from torchvision.models import ResNet, resnet18


# --8<-- [start:signature]
def get_cifar_resnet(num_classes: int = 10) -> ResNet:
    # --8<-- [end:signature]
    """ResNet-18 (He et al. 2015, arXiv:1512.03385) adapted to 32x32 images.

    The stem follows section 4.2 of the paper, which starts its CIFAR-10 networks with
    one 3x3 convolution and no pooling. The rest is torchvision's ``resnet18`` with
    random initial weights.

    Args:
        num_classes: number of outputs of the last layer.

    Returns:
        A module that maps float images ``[N, 3, 32, 32]`` to logits ``[N, num_classes]``.
        With 10 classes it has 11,173,962 parameters; its feature maps are 32, 32, 16, 8
        and 4 pixels wide.

    Example:
        >>> import torch
        >>> model = get_cifar_resnet()
        >>> sum(parameter.numel() for parameter in model.parameters())
        11173962
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    # --8<-- [start:body]
    # 1. 加载标准 ResNet 结构
    model = resnet18(weights=None)

    # 2. 修改第一层卷积：适应 32x32 小图
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)

    # 3. 移除第一层池化：防止信息过早丢失
    model.maxpool = nn.Identity()

    # 4. 修改全连接层：适应 10 分类
    model.fc = nn.Linear(model.fc.in_features, num_classes)

    return model
    # --8<-- [end:body]
