"""The windows of convolutions and pools."""

from __future__ import annotations

from tests.fuzz.net import Net

__all__ = ["Window"]


class Window:
    """Attributes of a convolution or pool over the spatial axes of `net.x`, always valid."""

    def __init__(self, net: Net, *, pool: bool = False) -> None:
        spatial = net.spatial
        self.kernel = [min(net.pick((1, 2, 3, 3, 3, 4, 5)), length + 2) for length in spatial]
        self.strides = [net.pick((1, 1, 1, 2, 3)) for _ in spatial]
        self.dilations = [net.pick((1, 1, 1, 1, 2, 3)) for _ in spatial]
        if net.chance(0.3):
            self.strides = [1] * len(spatial)
        self.before, self.after = ([0] * len(spatial) for _ in range(2))
        for axis, length in enumerate(spatial):
            reach = self.reach(axis)
            most = self.kernel[axis] - 1 if pool else reach + 1
            style = net.pick(("none", "same", "any"))
            if style == "same":
                self.before[axis] = min(reach // 2, most)
                self.after[axis] = min(reach - reach // 2, most)
            elif style == "any":
                self.before[axis] = net.between(0, min(most, 4))
                self.after[axis] = net.between(0, min(most, 4))
            self._fit(axis, length, most)

    def reach(self, axis: int) -> int:
        """Return how far the last tap of a window lies from the first."""
        return self.dilations[axis] * (self.kernel[axis] - 1)

    def _fit(self, axis: int, length: int, most: int) -> None:
        """Make the padded axis as long as the window at least, by pads or a smaller window."""
        missing = self.reach(axis) + 1 - length - self.before[axis] - self.after[axis]
        if missing <= 0:
            return
        self.after[axis] = min(self.after[axis] + missing, most)
        if self.reach(axis) + 1 > length + self.before[axis] + self.after[axis]:
            self.kernel[axis] = self.dilations[axis] = 1
            self.before[axis] = self.after[axis] = 0

    def ceil(self, net: Net) -> int:
        """Return a ceil_mode, 0 where onnx and ONNX Runtime count windows differently.

        They do where the last window would start behind the input, in its padding.
        """
        for axis, length in enumerate(net.spatial):
            padded = length + self.before[axis] + self.after[axis]
            steps = -(-(padded - self.reach(axis) - 1) // self.strides[axis])
            if steps * self.strides[axis] >= length + self.before[axis]:
                return 0
        return net.between(0, 1)

    def attributes(self, *, pads: bool = True) -> dict[str, list[int]]:
        """Return the ONNX attributes."""
        found = {"kernel_shape": self.kernel, "strides": self.strides, "dilations": self.dilations}
        return found | ({"pads": [*self.before, *self.after]} if pads else {})
