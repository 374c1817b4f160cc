"""Blocks of the networks that followed, each in a small network, in plain PyTorch.

Each is spelled as the code published with its paper, or as reimplementations that people copied
since, spell it: the shape of what exporters see is what matters here, so the spellings differ from
block to block on purpose. None of it is `bnncc.nn`: this is what users bring.

`trained` stands for training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["trained"]

Activation = Callable[[Tensor], Tensor]

# --- Signs ----------------------------------------------------------------------------------------


class Sign(torch.autograd.Function):
    """torch.sign, so that 0 stays 0."""

    @staticmethod
    def forward(ctx, x):
        return torch.sign(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def masked_residue(x: Tensor) -> Tensor:
    """Return Bi-Real Net's sign, whose estimator is put together from masks."""
    below, negative, small = x < -1, x < 0, x < 1
    left = (-1) * below.type(torch.float32) + (x * x + 2 * x) * (1 - below.type(torch.float32))
    middle = left * negative.type(torch.float32)
    middle = middle + (-x * x + 2 * x) * (1 - negative.type(torch.float32))
    curve = middle * small.type(torch.float32) + 1 * (1 - small.type(torch.float32))
    return torch.sign(x).detach() - curve.detach() + curve


def clamped_residue(x: Tensor) -> Tensor:
    """Return a sign whose estimator is a hard tanh."""
    clamped = torch.clamp(x, -1.0, 1.0)
    return torch.sign(x).detach() - clamped.detach() + clamped


def tanh_residue(x: Tensor) -> Tensor:
    """Return a sign whose estimator is a steep tanh."""
    soft = torch.tanh(3.0 * x)
    return soft + (torch.sign(x) - soft).detach()


def chosen(x: Tensor) -> Tensor:
    """Return a sign by torch.where: 0 gives +1."""
    return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))


def compared(x: Tensor) -> Tensor:
    """Return a sign by a comparison cast to float: 0 gives -1."""
    return (x > 0).float() * 2 - 1


def patched(x: Tensor) -> Tensor:
    """Return torch.sign with its zeros patched to +1, as in bitorch."""
    sign = torch.sign(x)
    return torch.where(sign == 0, torch.tensor(1.0), sign)


def signed_twice(x: Tensor) -> Tensor:
    """Return larq's sign: 0 gives +1."""
    return torch.sign(torch.sign(x) + 0.1)


def nudged(x: Tensor) -> Tensor:
    """Return the sign of what is a little less."""
    return (x - 1e-6).sign()


# --- Binary layers --------------------------------------------------------------------------------


def mean_magnitude(weight: Tensor) -> Tensor:
    """Return mean |W| of each output channel, [O, 1, ...]."""
    return weight.abs().flatten(1).mean(-1).view(-1, *(1,) * (weight.dim() - 1))


class BinaryConv2d(nn.Conv2d):
    """A convolution by sign(W), times mean |W| behind it if `scaled`."""

    def __init__(self, *args, scaled: bool = False, **options) -> None:
        super().__init__(*args, bias=False, **options)
        self.scaled = scaled

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(
            x,
            torch.sign(self.weight),
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )
        return y * mean_magnitude(self.weight).view(-1, 1, 1) if self.scaled else y


class BinaryConv1d(nn.Conv1d):
    """The same for one axis, its weights by torch.where."""

    def forward(self, x: Tensor) -> Tensor:
        weight = chosen(self.weight)
        return F.conv1d(x, weight, self.bias, self.stride, self.padding, 1, self.groups)


class BinaryLinear(nn.Linear):
    """A dense layer by centred weights' signs times their mean magnitude, with a bias."""

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean(-1, keepdim=True)
        weight = mean_magnitude(centred) * Sign.apply(centred)
        return F.linear(x, weight, self.bias)


def stem(outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a real convolution of a 3-channel image and its BatchNorm."""
    return nn.Sequential(nn.Conv2d(3, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


def head(channels: int) -> nn.Sequential:
    """Return the average over pixels, and a real dense layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


# --- ReActNet -------------------------------------------------------------------------------------


class LearnableBias(nn.Module):
    """A shift a channel; spelled as in ReActNet's MobileNet, or by expand_as as in its ResNet."""

    def __init__(self, channels: int, *, expanded: bool = False) -> None:
        super().__init__()
        self.expanded = expanded
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.bias.expand_as(x) if self.expanded else self.bias.reshape([-1, 1, 1]))


class RPReLU(nn.Sequential):
    """PReLU between two learned shifts."""

    def __init__(self, channels: int, *, expanded: bool = False) -> None:
        super().__init__(
            LearnableBias(channels, expanded=expanded),
            nn.PReLU(channels),
            LearnableBias(channels, expanded=expanded),
        )


class HardBinaryConv(nn.Module):
    """A convolution by the signs of a vector of weights, viewed as filters; scaled behind it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.padding = stride, kernel // 2
        self.shape = (outputs, inputs, kernel, kernel)
        self.weights = nn.Parameter(torch.rand(math.prod(self.shape), 1) * 0.001)

    def forward(self, x: Tensor) -> Tensor:
        real = self.weights.view(self.shape)
        scale = torch.mean(torch.mean(torch.mean(abs(real), 3, True), 2, True), 1, True)
        y = F.conv2d(x, torch.sign(real), stride=self.stride, padding=self.padding)
        return y * scale.reshape([-1, 1, 1])


class ReActBlock(nn.Module):
    """3x3 and 1x1 with shortcuts; to double the channels, two 1x1 on the same bits, side by side.

    At stride 2 the first shortcut is an average pool.
    """

    def __init__(self, channels: int, *, doubled: bool = False, expanded: bool = False) -> None:
        super().__init__()
        self.doubled = doubled
        outputs = channels * (2 if doubled else 1)
        self.shift1 = LearnableBias(channels, expanded=expanded)
        self.conv3x3 = HardBinaryConv(channels, channels, 3, 2 if doubled else 1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.act1 = RPReLU(channels, expanded=expanded)
        self.shift2 = LearnableBias(channels, expanded=expanded)
        self.points = nn.ModuleList(
            nn.Sequential(HardBinaryConv(channels, channels, 1), nn.BatchNorm2d(channels))
            for _ in range(outputs // channels)
        )
        self.act2 = RPReLU(outputs, expanded=expanded)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv3x3(torch.sign(self.shift1(x))))
        if self.doubled:
            x = F.avg_pool2d(x, 2, 2)
        y = self.act1(x + y)
        bits = torch.sign(self.shift2(y))
        parts = []
        for point in self.points:
            part = point(bits)
            part += y
            parts.append(part)
        return self.act2(torch.cat(parts, dim=1) if self.doubled else parts[0])


class ReActNet(nn.Sequential):
    """Three such blocks, the second with twice the channels."""

    def __init__(self, *, expanded: bool = False) -> None:
        super().__init__(
            stem(8),
            ReActBlock(8, expanded=expanded),
            ReActBlock(8, doubled=True, expanded=expanded),
            ReActBlock(16, expanded=expanded),
            head(16),
        )


# --- Concatenation --------------------------------------------------------------------------------


class DenseLayer(nn.Module):
    """BatchNorm, sign, binary convolution, whose channels join those that it read."""

    def __init__(self, channels: int, growth: int, sign: Activation) -> None:
        super().__init__()
        self.sign = sign
        self.norm = nn.BatchNorm2d(channels)
        self.conv = BinaryConv2d(channels, growth, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.sign(self.norm(x)))], dim=1)


class ImprovementBlock(nn.Module):
    """MeliusNet's: a binary convolution added to the newest channels only."""

    def __init__(self, channels: int, newest: int) -> None:
        super().__init__()
        self.kept, self.newest = channels - newest, newest
        self.body = nn.Sequential(nn.BatchNorm2d(channels))
        self.conv = BinaryConv2d(channels, newest, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(patched(self.body(x)))
        old = torch.narrow(x, 1, 0, self.kept)
        new = torch.narrow(x, 1, self.kept, self.newest) + y
        return torch.cat([old, new], dim=1)


class Transition(nn.Sequential):
    """BatchNorm, ReLU, a pool, and a real 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, pool: nn.Module) -> None:
        super().__init__(
            nn.BatchNorm2d(inputs), nn.ReLU(), pool, nn.Conv2d(inputs, outputs, 1, bias=False)
        )


def binary_dense_net() -> nn.Sequential:
    """Return BinaryDenseNet: two dense layers, a transition, another one."""
    return nn.Sequential(
        stem(8),
        DenseLayer(8, 4, torch.sign),
        DenseLayer(12, 4, chosen),
        Transition(16, 8, nn.AvgPool2d(2, 2)),
        DenseLayer(8, 4, compared),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        head(12),
    )


def melius_net() -> nn.Sequential:
    """Return MeliusNet: dense and improvement blocks in turns."""
    return nn.Sequential(
        stem(8),
        DenseLayer(8, 4, patched),
        ImprovementBlock(12, 4),
        Transition(12, 8, nn.MaxPool2d(2, 2)),
        DenseLayer(8, 4, patched),
        ImprovementBlock(12, 4),
        head(12),
    )


# --- Gates ----------------------------------------------------------------------------------------


class GatedBlock(nn.Module):
    """Real-to-binary's: what the real input is like decides how each channel is scaled."""

    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = BinaryConv2d(channels, channels, 3, padding=1)
        self.squeeze = nn.Linear(channels, channels // 4)
        self.excite = nn.Linear(channels // 4, channels)
        self.gate = gate
        self.activation = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm(x)
        scale = F.relu(self.squeeze(F.adaptive_avg_pool2d(normal, 1).view(x.size(0), -1)))
        scale = self.gate(self.excite(scale)).view(x.size(0), -1, 1, 1)
        return self.activation(self.conv(Sign.apply(normal)) * scale) + x


class GatedByConvs(nn.Module):
    """Squeeze and excite by 1x1 convolutions on the result, its mean spelled as reductions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = BinaryConv2d(channels, channels, 3, padding=1, scaled=True)
        self.norm = nn.BatchNorm2d(channels)
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(nudged(x)))
        gate = self.reduce(y.mean((2, 3), keepdim=True))
        return y * torch.sigmoid(self.expand(F.relu(gate))) + x


def real_to_binary() -> nn.Sequential:
    """Return gated blocks of both kinds."""
    return nn.Sequential(
        stem(8),
        GatedBlock(8, nn.Sigmoid()),
        GatedBlock(8, nn.Hardsigmoid()),
        GatedByConvs(8),
        head(8),
    )


# --- Channels that are split and shuffled ---------------------------------------------------------


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Return the channels of all groups interleaved."""
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Half of the real channels pass, half go through a grouped binary layer; all are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.norm = nn.BatchNorm2d(half)
        self.conv1 = BinaryConv2d(half, half, 3, padding=1, groups=2)
        self.norm1 = nn.BatchNorm2d(half)
        self.conv2 = BinaryConv2d(half, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, y = x.chunk(2, dim=1)
        y = self.norm1(self.conv1(torch.sign(self.norm(y))))
        y = self.conv2(shuffled(chosen(y), 2))
        return shuffled(torch.cat((kept, y), dim=1), 2)


def shuffle_net() -> nn.Sequential:
    """Return two units with a pool of bits between them."""
    return nn.Sequential(stem(8), ShuffleUnit(8), ShuffleUnit(8), head(8))


class SplitBits(nn.Module):
    """Bits are split by channels, and each part has a layer; their bits are put together again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sizes = [channels // 4, channels - channels // 4]
        self.stem = stem(channels)
        self.convs = nn.ModuleList(BinaryConv2d(n, n, 3, padding=1) for n in self.sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in self.sizes)
        self.last = BinaryConv2d(channels, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        bits = torch.split(chosen(self.stem(x)), self.sizes, dim=1)
        layers = zip(bits, self.convs, self.norms, strict=True)
        parts = [chosen(norm(conv(part))) for part, conv, norm in layers]
        return self.last(torch.cat(parts[::-1], 1)).flatten(1)


# --- Shortcuts without parameters, and what is normalised a sample --------------------------------


class StandardisedConv(nn.Conv2d):
    """IR-Net's weights: standardised, signs times a power of two near their mean magnitude."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        centred = weight - weight.view(weight.size(0), -1).mean(-1).view(-1, 1, 1, 1)
        normal = centred / centred.view(weight.size(0), -1).std(-1).view(-1, 1, 1, 1)
        mean = normal.abs().view(weight.size(0), -1).mean(-1)
        power = torch.pow(torch.tensor([2.0]), (torch.log(mean) / math.log(2)).round())
        binary = Sign.apply(normal) * power.view(-1, 1, 1, 1)
        return F.conv2d(Sign.apply(x), binary, self.bias, self.stride, self.padding)


class IRBlock(nn.Module):
    """ResNet's basic block with IR-Net's layers; its shortcut drops pixels and adds channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = StandardisedConv(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = StandardisedConv(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.more = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardtanh(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.more:
            side = (0, 0, 0, 0, self.more // 2, self.more // 2)
            x = F.pad(x[:, :, ::2, ::2], side, "constant", 0)
        y += x
        return F.hardtanh(y)


def ir_net() -> nn.Sequential:
    """Return two blocks, the second at half the size with twice the channels."""
    return nn.Sequential(stem(8), nn.Hardtanh(), IRBlock(8, 8, 1), IRBlock(8, 16, 2), head(16))


class RotatedConv(nn.Conv2d):
    """RBNN's: weights rotated from both sides, activations normalised by their own statistics."""

    def __init__(self, *args, unbiased: bool, **options) -> None:
        super().__init__(*args, bias=False, **options)
        self.unbiased = unbiased
        size = math.prod(self.weight.shape[1:])
        rows = next(n for n in range(math.isqrt(size), 0, -1) if size % n == 0)
        self.register_buffer("left", nn.init.orthogonal_(torch.empty(rows, rows)))
        self.register_buffer("right", nn.init.orthogonal_(torch.empty(size // rows, size // rows)))
        self.alpha = nn.Parameter(torch.ones(self.weight.shape[0], 1, 1))
        self.rotate = nn.Parameter(torch.rand(self.weight.shape[0], 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        centred = weight - weight.view(weight.size(0), -1).mean(-1).view(weight.size(0), 1, 1, 1)
        deviation = centred.view(weight.size(0), -1).std(-1).view(weight.size(0), 1, 1, 1)
        normal = centred / deviation
        matrices = normal.view(weight.shape[0], len(self.left), len(self.right))
        rotated = (self.left.t() @ matrices @ self.right).view_as(weight)
        weight = normal + torch.abs(torch.sin(self.rotate)) * (rotated - normal)
        x = x - x.mean([1, 2, 3], keepdim=True)
        x = x / torch.sqrt(x.var([1, 2, 3], keepdim=True, unbiased=self.unbiased) + 1e-5)
        y = F.conv2d(Sign.apply(x), Sign.apply(weight), None, self.stride, self.padding)
        return y * self.alpha


def rbnn() -> nn.Sequential:
    """Return two such layers with shortcuts' non-linearity between them."""
    return nn.Sequential(
        stem(8),
        RotatedConv(8, 8, 3, padding=1, unbiased=True),
        nn.BatchNorm2d(8),
        nn.Hardtanh(),
        RotatedConv(8, 8, 3, padding=1, unbiased=False),
        nn.BatchNorm2d(8),
        head(8),
    )


# --- Scales that are learned ----------------------------------------------------------------------


class FactorisedConv(nn.Module):
    """XNOR-Net++'s: scales a channel, row and column, of larger parameters cut to size.

    `product`: the scales are multiplied with one another first, as an outer product.
    """

    def __init__(self, inputs: int, outputs: int, *, product: bool) -> None:
        super().__init__()
        self.product = product
        self.weight = nn.Parameter(torch.rand(outputs, inputs, 3, 3))
        self.channels = nn.Parameter(torch.ones(1, outputs, 1, 1))
        self.rows = nn.Parameter(torch.ones(1, 1, 64, 1))
        self.columns = nn.Parameter(torch.ones(1, 1, 1, 64))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(clamped_residue(x), clamped_residue(self.weight), padding=1)
        rows = self.rows[:, :, : y.shape[2], :]
        columns = self.columns[:, :, :, : y.shape[3]]
        if self.product:
            return y * (self.channels * (rows * columns))
        return y * self.channels * rows * columns


def xnor_net_plus_plus(*, product: bool) -> nn.Sequential:
    """Return three layers, of which thresholds follow two, BatchNorm and shortcut-free."""
    return nn.Sequential(
        stem(8),
        FactorisedConv(8, 8, product=product),
        nn.BatchNorm2d(8),
        FactorisedConv(8, 8, product=product),
        nn.PReLU(8),
        nn.BatchNorm2d(8),
        FactorisedConv(8, 8, product=product),
        head(8),
    )


class TransposedDecoder(nn.Module):
    """Binary convolutions down, binary transposed convolutions up, real ones at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(8)
        self.down = BinaryConv2d(8, 12, 3, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(12)
        self.up1 = nn.ConvTranspose2d(12, 8, 4, 2, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.up2 = nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, bias=False)
        self.last = nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.down(chosen(self.stem(x))))
        weight = torch.sign(self.up1.weight)
        y = self.norm2(F.conv_transpose2d(compared(y), weight, None, 2, 1))
        weight = torch.sign(self.up2.weight) * self.up2.weight.abs().mean()
        y = F.conv_transpose2d(patched(y), weight, None, 2, 1, output_padding=1)
        return torch.sigmoid(self.last(F.relu(y)))


class ResidueBlock(nn.Module):
    """A binary convolution of what an estimator's residue spells, with a shortcut."""

    def __init__(self, channels: int, sign: Activation) -> None:
        super().__init__()
        self.sign = sign
        self.weight = nn.Parameter(torch.rand(channels, channels, 3, 3))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        real = self.weight
        clamped = torch.clamp(real, -1.0, 1.0)
        scaled = mean_magnitude(real).detach() * torch.sign(real)
        weight = scaled.detach() - clamped.detach() + clamped
        return self.norm(F.conv2d(self.sign(x), weight, padding=1)) + x


def residues() -> nn.Sequential:
    """Return a block for each estimator."""
    signs = (masked_residue, clamped_residue, tanh_residue)
    return nn.Sequential(stem(8), *(ResidueBlock(8, sign) for sign in signs), head(8))


# --- AdaBin ---------------------------------------------------------------------------------------


class Maxout(nn.Module):
    """A slope on either side of 0, a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.negative = nn.Parameter(torch.ones(channels))
        self.positive = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        rising = self.positive.view(1, -1, 1, 1) * F.relu(x)
        return rising - self.negative.view(1, -1, 1, 1) * F.relu(-x)


class AdaBinConv(nn.Conv2d):
    """Two values of weights a channel, two of activations a layer."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, bias=False, **options)
        self.alpha = nn.Parameter(torch.tensor(0.8))
        self.beta = nn.Parameter(torch.tensor(-0.15))

    def forward(self, x: Tensor) -> Tensor:
        x = self.alpha * (masked_residue((x - self.beta) / self.alpha) + self.beta)
        weight = self.weight
        beta = weight.mean((1, 2, 3)).view(-1, 1, 1, 1)
        square = ((weight - beta) ** 2).sum((1, 2, 3)) / math.prod(weight.shape[1:])
        alpha = torch.sqrt(square).view(-1, 1, 1, 1)
        weight = Sign.apply((weight - beta) / alpha) * alpha + beta
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def ada_bin() -> nn.Sequential:
    """Return two layers with Maxout behind them."""
    return nn.Sequential(
        stem(8),
        AdaBinConv(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        Maxout(8),
        AdaBinConv(8, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        Maxout(8),
        head(8),
    )


# --- Several bits ---------------------------------------------------------------------------------


class DoReFaConv(nn.Conv2d):
    """DoReFa's: weights of `weight_bits` from a tanh, activations of `bits` from a clamp."""

    def __init__(self, *args, weight_bits: int, bits: int, **options) -> None:
        super().__init__(*args, bias=False, **options)
        self.weight_bits, self.bits = weight_bits, bits

    def forward(self, x: Tensor) -> Tensor:
        steps = float(2**self.bits - 1)
        x = torch.round(torch.clamp(x, 0, 1) * steps) / steps
        if self.weight_bits == 1:
            scale = torch.mean(torch.abs(self.weight))
            weight = Sign.apply(self.weight / scale) * scale
        else:
            soft = torch.tanh(self.weight)
            soft = soft / (2 * torch.max(torch.abs(soft))) + 0.5
            levels = float(2**self.weight_bits - 1)
            weight = 2 * (torch.round(soft * levels) / levels) - 1
        return F.conv2d(x, weight, None, self.stride, self.padding)


def dorefa() -> nn.Sequential:
    """Return layers of 1 to 3 bit weights and 2 to 4 bit activations."""
    layers: list[nn.Module] = []
    for weight_bits, bits in ((1, 2), (2, 3), (3, 4)):
        conv = DoReFaConv(8, 8, 3, padding=1, weight_bits=weight_bits, bits=bits)
        layers += [conv, nn.BatchNorm2d(8)]
    return nn.Sequential(stem(8), *layers, head(8))


class PactConv(nn.Conv2d):
    """PACT's: a clip that is learned, spelled by magnitudes, 2 bits; binary weights."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, bias=False, **options)
        self.alpha = nn.Parameter(torch.tensor(1.7))

    def forward(self, x: Tensor) -> Tensor:
        x = 0.5 * (torch.abs(x) - torch.abs(x - self.alpha) + self.alpha)
        scale = 3 / self.alpha
        x = torch.round(x * scale) / scale
        return F.conv2d(x, Sign.apply(self.weight), None, self.stride, self.padding)


def pact() -> nn.Sequential:
    """Return two such layers."""
    return nn.Sequential(
        stem(8),
        PactConv(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        PactConv(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        head(8),
    )


class LearnedLevels(nn.Module):
    """LQ-Nets' activations: sums of a basis of two, compared with what lies between them."""

    def __init__(self, basis: Sequence[float], *, signed: bool) -> None:
        super().__init__()
        codes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        codes = 2 * codes - 1 if signed else codes
        levels = torch.sort(codes @ torch.tensor(basis))[0]
        self.register_buffer("levels", levels)
        self.register_buffer("thresholds", (levels[1:] + levels[:-1]) / 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x) + self.levels[0]
        for i in range(3):
            y = torch.where(x >= self.thresholds[i], self.levels[i + 1], y)
        return y


def lq_net() -> nn.Sequential:
    """Return layers that read learned levels, of which one's are equally spaced."""
    return nn.Sequential(
        stem(8),
        LearnedLevels((0.5, 0.25), signed=False),
        BinaryConv2d(8, 8, 3, padding=1, scaled=True),
        nn.BatchNorm2d(8),
        LearnedLevels((0.81, 0.3), signed=True),
        BinaryConv2d(8, 8, 3, padding=1, scaled=True),
        nn.BatchNorm2d(8),
        LearnedLevels((0.7, 0.41), signed=False),
        BinaryConv2d(8, 8, 3, padding=1, scaled=True),
        head(8),
    )


def binary_connect() -> nn.Sequential:
    """Return binary weights between hard tanhs: sums of reals."""
    return nn.Sequential(
        BinaryConv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Hardtanh(),
        nn.MaxPool2d(2),
        BinaryConv2d(8, 8, 3, padding=1, scaled=True),
        nn.BatchNorm2d(8),
        nn.Hardtanh(),
        nn.Flatten(),
        BinaryLinear(8 * 6 * 6, 10),
    )


# --- Links and shifts -----------------------------------------------------------------------------


class ElasticLink(nn.Module):
    """A binary 1x1 layer around which its input goes too, its channels squeezed or repeated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.shift = LearnableBias(inputs, expanded=True)
        self.conv = BinaryConv2d(inputs, outputs, 1)
        self.norm = nn.BatchNorm2d(outputs)
        self.scale = nn.Parameter(torch.ones(1, outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(torch.sign(self.shift(x))))
        n, _, h, w = x.shape
        if self.inputs > self.outputs:
            ratio = self.inputs // self.outputs
            x = x.view(n, self.outputs, ratio, h, w).mean(2)
        else:
            x = x.repeat(1, self.outputs // self.inputs, 1, 1)
        return y + self.scale * x


class DynamicShift(nn.Module):
    """A shift before the sign that a small network computes from the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, 4)
        self.expand = nn.Linear(4, channels)
        self.conv = BinaryConv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        shift = self.expand(F.relu(self.reduce(x.mean(dim=(2, 3)))))
        bits = clamped_residue(x - shift.unsqueeze(-1).unsqueeze(-1))
        return self.norm(self.conv(bits)) + x


def elastic_link() -> nn.Sequential:
    """Return links that squeeze and repeat channels, and a dynamic shift."""
    return nn.Sequential(
        stem(8), ElasticLink(8, 4), ElasticLink(4, 16), DynamicShift(16), RPReLU(16), head(16)
    )


# --- QuickNet -------------------------------------------------------------------------------------


class QuickBlock(nn.Module):
    """A binary convolution padded with +1, ReLU, BatchNorm, and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = BinaryConv2d(channels, channels, 3)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        bits = F.pad(signed_twice(x), (1, 1, 1, 1), "constant", 1.0)
        return self.norm(F.relu(self.conv(bits))) + x


class BlurTransition(nn.Sequential):
    """ReLU, MaxPool, a fixed depthwise blur at stride 2, a real 1x1 layer, ReLU, BatchNorm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        blur = nn.Conv2d(inputs, inputs, 3, 2, groups=inputs, bias=False)
        row = torch.tensor([1.0, 2.0, 1.0])
        blur.weight = nn.Parameter((row[:, None] * row / 16).repeat(inputs, 1, 1, 1), False)
        super().__init__(
            nn.ReLU(),
            nn.MaxPool2d(2, stride=1),
            nn.ZeroPad2d(1),
            blur,
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(outputs),
        )


def quick_net() -> nn.Sequential:
    """Return QuickNet: a stem of a strided, a depthwise and a 1x1 convolution, two sections."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        QuickBlock(8),
        QuickBlock(8),
        BlurTransition(8, 16),
        QuickBlock(16),
        nn.ReLU(),
        head(16),
    )


# --- Tokens ---------------------------------------------------------------------------------------


class TokenRPReLU(nn.Module):
    """RPReLU with channels last; PReLU wants them on axis 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.zeros(channels))
        self.slopes = nn.PReLU(channels)
        self.behind = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.slopes((x - self.before).transpose(-1, -2)).transpose(-1, -2)
        return y + self.behind


class TokenMlp(nn.Module):
    """A transformer's MLP: LayerNorm, shift, sign, binary dense layers over tokens [N, T, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.shift = nn.Parameter(torch.zeros(channels))
        self.expand = BinaryLinear(channels, 2 * channels)
        self.activation = TokenRPReLU(2 * channels)
        self.reduce = BinaryLinear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.expand(torch.sign(self.norm(x) + self.shift)))
        return x + self.reduce(chosen(y))


class TokenMixer(nn.Module):
    """MLP-Mixer's other half: a binary dense layer over the tokens of each channel."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mix = BinaryLinear(tokens, tokens)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(torch.sign(self.norm(x)).transpose(1, 2))
        return x + y.transpose(1, 2)


class Tokens(nn.Module):
    """Patches of an image as tokens, mixed both ways, and averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.Sequential(TokenMlp(16), TokenMixer(16, 9), TokenMlp(16))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


class Attention(nn.Module):
    """Binary self-attention: its products are of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (BinaryLinear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        bits = torch.sign(x)
        query, key, value = (torch.sign(f(bits)) for f in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(-2, -1) / math.sqrt(8), dim=-1)
        return weights @ value


# --- Decoders, one axis, several inputs -----------------------------------------------------------


class Generator(nn.Module):
    """A vector becomes an image: binary layers behind nearest upsampling of bits."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(16, 8 * 4 * 4)
        self.norm0 = nn.BatchNorm2d(8)
        self.up = nn.Upsample(scale_factor=2)
        self.conv1 = BinaryConv2d(8, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = BinaryConv2d(8, 6, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm0(self.dense(z).view(-1, 8, 4, 4))
        x = self.norm1(self.conv1(self.up(torch.sign(x))))
        x = self.conv2(chosen(F.interpolate(x, scale_factor=2, mode="nearest")))
        return torch.tanh(self.last(F.leaky_relu(self.norm2(x), 0.2)))


class DoubleConv(nn.Module):
    """Two binary convolutions, each behind BatchNorm and a sign."""

    def __init__(self, inputs: int, outputs: int, sign: Activation) -> None:
        super().__init__()
        self.sign = sign
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = BinaryConv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = BinaryConv2d(outputs, outputs, 3, padding=1, scaled=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.sign(self.norm1(x)))
        return F.hardtanh(self.conv2(self.sign(self.norm2(y))))


class UNet(nn.Module):
    """Down and up again, each level's reals concatenated with what comes from below."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(8)
        self.down = DoubleConv(8, 8, torch.sign)
        self.bottom = DoubleConv(8, 12, chosen)
        self.up = DoubleConv(20, 8, compared)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(self.stem(x))
        below = self.bottom(F.max_pool2d(skip, 2))
        above = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(self.up(torch.cat([skip, above], dim=1)))


class KeywordNet(nn.Module):
    """A 1-D network for sound: depthwise and pointwise binary layers with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(10, 8, 5, stride=2, padding=2, bias=False)
        self.norm0 = nn.BatchNorm1d(8)
        self.depthwise = BinaryConv1d(8, 8, 9, padding=4, groups=8, bias=False)
        self.norm1 = nn.BatchNorm1d(8)
        self.pointwise = BinaryConv1d(8, 8, 1, bias=True)
        self.norm2 = nn.BatchNorm1d(8)
        self.strided = BinaryConv1d(8, 12, 3, stride=2, bias=False)
        self.norm3 = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.first(x))
        y = self.norm1(self.depthwise(torch.sign(x)))
        y = self.norm2(self.pointwise(chosen(y))) + x
        y = F.max_pool1d(self.norm3(self.strided(patched(y))), 2)
        return self.head(F.relu(y).mean(-1)).log_softmax(-1)


class TwoOfEach(nn.Module):
    """An image and a vector in, scores and a mask out, the layers between them shared."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(8)
        self.embed = nn.Linear(5, 8)
        self.conv = BinaryConv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.mask = BinaryConv2d(8, 1, 1)
        self.scores = BinaryLinear(8 * 12 * 12, 10)

    def forward(self, image: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(image) + self.embed(vector)[:, :, None, None]
        bits = chosen(self.norm(self.conv(torch.sign(x))))
        return self.scores(torch.flatten(bits, 1)), self.mask(bits)


class Verdict(nn.Module):
    """One sign a sample, without an axis of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(16, 16)
        self.norm = nn.BatchNorm1d(16)
        self.score = BinaryLinear(16, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(self.score(torch.sign(self.norm(self.hidden(x)))).squeeze(1))


# --- In place of training -------------------------------------------------------------------------


def trained(model: nn.Module, shapes: Sequence[Sequence[int]], seed: int) -> nn.Module:
    """Give the model weights and BatchNorm statistics as training leaves them, in eval mode.

    Gammas have either sign, the third is 0; slopes and shifts have either sign too. Running
    statistics are those of random inputs, and then off by a little. Parameters of one element are
    clips and steps: they keep the value that the block gave them.

    Args:
        model: changed in place.
        shapes: of one sample of each input, without the batch.
        seed: of everything random.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and parameter.requires_grad:
                fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
                parameter.normal_(0, max(fan_in, 4) ** -0.5, generator=random)
        for norm in norms:
            norm.momentum = None  # of the batches to come, the plain mean
            norm.weight.normal_(0.6, 0.8, generator=random)
            norm.weight[2] = 0
        model.train()
        for _ in range(2):
            model(*(torch.randn(8, *shape, generator=random) for shape in shapes))
        model.eval()
        for norm in norms:
            spread = norm.running_var.sqrt()
            norm.running_mean += 0.2 * spread * torch.randn(spread.shape, generator=random)
            norm.running_var *= torch.rand(spread.shape, generator=random) + 0.5
    return model
