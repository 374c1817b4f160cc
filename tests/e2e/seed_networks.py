"""The networks of the papers that started the field, at true size, in plain PyTorch.

Each is spelled as the code published with its paper, or after it, spells such networks: latent real
weights that forward makes binary, an autograd.Function or a detached straight-through residue for
the sign, shortcuts and scales in plain operations. None of it is `bnncc.nn`: this is what users
bring.

`trained` stands for training: it leaves BatchNorm the statistics that fit the activations, and
gammas of which some are negative and a few are exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "alexnet",
    "alexnet_with_kappa",
    "bi_real_net",
    "binary_connect_vgg",
    "bnn_vgg",
    "lenet_with_kappa",
    "trained",
]

# --- Signs ----------------------------------------------------------------------------------------


class Sign(torch.autograd.Function):
    """torch.sign, so that 0 stays 0; the gradient passes where |x| <= 1."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)


class RoundedSign(torch.autograd.Function):
    """2 * round(hard sigmoid) - 1, as in the BNN of 2016: 0 gives -1, since 0.5 rounds to 0."""

    @staticmethod
    def forward(ctx, x):
        return 2 * torch.round(torch.clamp((x + 1) / 2, 0.0, 1.0)) - 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def approx_sign(x: Tensor) -> Tensor:
    """Return Bi-Real Net's sign: its gradient is that of two parabolas between -1 and 1."""
    left, right = x < 0, x < 1
    curve = torch.where(left, x * x + 2 * x, 2 * x - x * x)
    curve = torch.where(x < -1, -torch.ones_like(x), torch.where(right, curve, torch.ones_like(x)))
    return torch.sign(x).detach() - curve.detach() + curve


def magnitudes(weight: Tensor) -> Tensor:
    """Return mean |W| of each output channel, [O, 1, ...]: XNOR-Net's alpha."""
    return weight.abs().mean(dim=tuple(range(1, weight.dim())), keepdim=True)


# --- XNOR-Net -------------------------------------------------------------------------------------


class XnorConv(nn.Conv2d):
    """A convolution by alpha * sign(W), with its bias."""

    def forward(self, x: Tensor) -> Tensor:
        weight = Sign.apply(self.weight) * magnitudes(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class XnorLinear(nn.Linear):
    """The same for a dense layer."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, Sign.apply(self.weight) * magnitudes(self.weight), self.bias)


class XnorBlock(nn.Module):
    """BatchNorm, sign, binary layer, ReLU."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.layer = norm, layer

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layer(Sign.apply(self.norm(x))))


def _xnor_block(inputs: int, outputs: int, kernel: int) -> XnorBlock:
    conv = XnorConv(inputs, outputs, kernel, padding=kernel // 2)
    return XnorBlock(conv, nn.BatchNorm2d(inputs, eps=1e-4))


def _xnor_dense(inputs: int, outputs: int) -> XnorBlock:
    return XnorBlock(XnorLinear(inputs, outputs), nn.BatchNorm1d(inputs, eps=1e-4))


def _alexnet(block: Callable[[int, int, int], nn.Module]) -> nn.Sequential:
    """Return AlexNet for 3 x 224 x 224 with its inner convolutions made by `block`."""
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4, padding=2),
        nn.BatchNorm2d(96, eps=1e-5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        block(96, 256, 5),
        nn.MaxPool2d(3, 2),
        block(256, 384, 3),
        block(384, 384, 3),
        block(384, 256, 3),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        _xnor_dense(256 * 6 * 6, 4096),
        nn.Dropout(),
        _xnor_dense(4096, 4096),
        nn.BatchNorm1d(4096, eps=1e-3),
        nn.Dropout(),
        nn.Linear(4096, 1000),
    )


def alexnet() -> nn.Sequential:
    """Return XNOR-Net's AlexNet with alpha only: 61 M weights, of which 57 M are binary."""
    return _alexnet(_xnor_block)


class KappaConv(nn.Conv2d):
    """XNOR-Net's equation 11: (sign(x) * sign(W)) K alpha, where K is the local mean of |x|."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, pooled: bool = False) -> None:
        """Take K by an average pool if `pooled`, else by a convolution with a constant filter."""
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.pooled = pooled
        self.register_buffer("box", torch.full((1, 1, kernel, kernel), 1 / kernel**2))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.abs().mean(1, keepdim=True)
        if self.pooled:  # alpha with the weights
            kappa = F.avg_pool2d(mean, self.kernel_size, 1, self.padding)
            weight = Sign.apply(self.weight) * magnitudes(self.weight)
            y = F.conv2d(Sign.apply(x), weight, None, self.stride, self.padding) * kappa
        else:
            kappa = F.conv2d(mean, self.box, padding=self.padding)
            y = F.conv2d(Sign.apply(x), Sign.apply(self.weight), None, 1, self.padding)
            y = y * kappa * magnitudes(self.weight).view(1, -1, 1, 1)
        return y + self.bias.view(1, -1, 1, 1)


class KappaBlock(nn.Module):
    """BatchNorm, then kappa and sign of the same values, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, pooled: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs, eps=1e-4)
        self.conv = KappaConv(inputs, outputs, kernel, pooled=pooled)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(self.norm(x)))


def alexnet_with_kappa() -> nn.Sequential:
    """Return XNOR-Net's AlexNet with alpha and kappa."""
    return _alexnet(KappaBlock)


def lenet_with_kappa(width: int = 20) -> nn.Sequential:
    """Return a LeNet for 1 x 28 x 28 with two binary layers that have kappa, one after the other.

    Between them nothing pools: the epilogue of the first gives value, sum and bit together.
    """
    return nn.Sequential(
        nn.Conv2d(1, width, 5),
        nn.BatchNorm2d(width, eps=1e-4),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        KappaBlock(width, 2 * width, 3, pooled=True),
        KappaBlock(2 * width, 2 * width + 3, 5, pooled=True),
        nn.MaxPool2d(2, 2),
        nn.Flatten(),
        _xnor_dense((2 * width + 3) * 6 * 6, 10 * width),
        nn.Linear(10 * width, 10),
        nn.LogSoftmax(1),
    )


# --- Bi-Real Net ----------------------------------------------------------------------------------


class ScaledSignConv(nn.Module):
    """A 3x3 convolution by mean|W| * sign(W), as a residue that lets gradients reach W."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        real = self.weight
        scale = real.abs().mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)
        clipped = torch.clamp(real, -1.0, 1.0)
        weight = (scale.detach() * torch.sign(real)).detach() - clipped.detach() + clipped
        return F.conv2d(x, weight, stride=self.stride, padding=1)


class BiRealBlock(nn.Module):
    """One binary convolution with a real shortcut around it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = ScaledSignConv(inputs, outputs, stride)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(2, stride),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(approx_sign(x)))
        y += self.shortcut(x)
        return y


def bi_real_net(
    blocks: Sequence[int] = (4, 4, 4, 4), width: int = 64, classes: int = 1000
) -> nn.Sequential:
    """Return Bi-Real-18; (6, 8, 12, 6) gives Bi-Real-34, which has as many blocks a stage."""
    stages: list[nn.Module] = []
    channels = width
    for stage, count in enumerate(blocks):
        for i in range(count):
            stride = 2 if stage and not i else 1
            stages.append(BiRealBlock(channels, width << stage, stride))
            channels = width << stage
    return nn.Sequential(
        nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.MaxPool2d(3, 2, 1),
        *stages,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )


# --- BinaryConnect, BWN and BNN -------------------------------------------------------------------


class BinaryWeight(nn.Module):
    """A 3x3 convolution or a dense layer by the signs of its latent weights, scaled or not."""

    def __init__(self, inputs: int, outputs: int, *, dense: bool, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *(() if dense else (3, 3))))

    def forward(self, x: Tensor) -> Tensor:
        weight = RoundedSign.apply(self.weight)
        if self.scaled:
            weight = weight * magnitudes(self.weight)
        return F.linear(x, weight) if weight.dim() == 2 else F.conv2d(x, weight, padding=1)


class Activation(nn.Module):
    """The BNN's: hard tanh, then sign."""

    def forward(self, x: Tensor) -> Tensor:
        return RoundedSign.apply(F.hardtanh(x))


def _vgg(activation: type[nn.Module], width: int, size: int, *, scaled: bool) -> nn.Sequential:
    """Return 2x128C3-MP2-2x256C3-MP2-2x512C3-MP2-2x1024FC-10 at width 128, pools before BatchNorm.

    Its input is 3 x size x size.
    """
    parts: list[nn.Module] = []
    channels = 3
    for stage in range(3):
        for pool in (False, True):
            outputs = width << stage
            parts.append(BinaryWeight(channels, outputs, dense=False, scaled=scaled))
            parts += [nn.MaxPool2d(2)] if pool else []
            parts += [nn.BatchNorm2d(outputs, eps=1e-4), activation()]
            channels = outputs
    parts.append(nn.Flatten())
    features = channels * (size // 8) ** 2
    for outputs in (8 * width, 8 * width, 10):
        parts.append(BinaryWeight(features, outputs, dense=True, scaled=scaled))
        parts += [nn.BatchNorm1d(outputs, eps=1e-4), activation()]
        features = outputs
    return nn.Sequential(*parts[:-1])


def bnn_vgg(width: int = 128, size: int = 32) -> nn.Sequential:
    """Return the BNN of 2016 for CIFAR-10: only the input is real."""
    return _vgg(Activation, width, size, scaled=False)


def binary_connect_vgg(width: int = 128, size: int = 32, *, scaled: bool = False) -> nn.Sequential:
    """Return BinaryConnect's, or BWN's if `scaled`: binary weights, real activations."""
    return _vgg(nn.ReLU, width, size, scaled=scaled)


# --- In place of training -------------------------------------------------------------------------


def trained(model: nn.Module, shape: Sequence[int], seed: int) -> nn.Module:
    """Give the model weights and BatchNorm statistics as training leaves them, in eval mode.

    About a tenth of the gammas are negative, a few are exactly 0. Running means and variances are
    those of the activations on random inputs, and then off by a little: so the bits are balanced,
    but nothing is where initialisation puts it.

    Args:
        model: changed in place.
        shape: of one input, [C, H, W].
        seed: of everything random.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 100
            parameter.normal_(0, fan_in**-0.5, generator=random)
        for norm in norms:
            _statistics(norm, random)
        model.train()
        for _ in range(2):
            model(torch.randn(4, *shape, generator=random))
        model.eval()
        for norm in norms:
            spread = norm.running_var.sqrt()
            norm.running_mean += 0.2 * spread * torch.randn(spread.shape, generator=random)
            norm.running_var *= torch.rand(spread.shape, generator=random) + 0.5
    return model


def _statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d, random: torch.Generator) -> None:
    norm.momentum = None  # of the batches to come, the plain mean
    norm.weight.normal_(1, 0.78, generator=random)
    norm.bias.normal_(0, 0.3, generator=random)
    norm.weight[3::37] = 0
