"""Compile the shipped MNIST network to C, hold it against the float model, and show what came out.

    python examples/mnist_mlp/demo.py [--output DIR]

Needs Python with bnncc installed and a C compiler; nothing is downloaded. `make demo` runs it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import bnncc
from bnncc.frontends.inputs import parse_input_spec

HERE = Path(__file__).resolve().parent
UINT8 = "uint8:0.0078125,-1"  # a byte u stands for u / 128 - 1, as in training


def main() -> None:
    """Compile, verify and time the network with float inputs, then with bytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "out", help="where the C goes")
    output = parser.parse_args().output

    sample = np.load(HERE / "sample.npz")
    images, labels = sample["images"], sample["labels"]
    model = HERE / "mnist_mlp.onnx"
    print(f"{model.name}: a 784-512-512-512-10 binary network; {len(images)} test images\n")

    _, spec = parse_input_spec(UINT8)
    for name, inputs, x in (
        ("mnist_mlp", (), spec.decode(images)),
        ("mnist_mlp_u8", (UINT8,), images),
    ):
        started = time.perf_counter()
        artifact = bnncc.compile(model, output, bnncc.Options(name=name, inputs=inputs))
        seconds = time.perf_counter() - started
        result = bnncc.verify(artifact, data={"x": x, "labels": labels})
        microseconds = bnncc.load(artifact).nanoseconds_per_sample(x) / 1000
        show(artifact, result, seconds, microseconds, "bytes" if inputs else "float32")
    if not result.ok:
        raise SystemExit(3)


def show(
    artifact: bnncc.Artifact,
    result: bnncc.Verification,
    seconds: float,
    microseconds: float,
    takes: str,
) -> None:
    """Print one compiled variant in words."""
    report, (scores,) = artifact.report, result.outputs
    bits = sum(layer.compared for layer in result.layers)
    undecided = sum(layer.undecided for layer in result.layers)
    verdict = "yes" if result.ok else "NO"
    print(f"input as {takes}: compiled in {seconds:.2f} s")
    print(f"  accuracy      float model {scores.accuracy_reference:.2%}, C {scores.accuracy_c:.2%}")
    print(f"  same answers  {scores.top1_agreement:.0%} of images")
    print(
        f"  same bits     {verdict}: {bits} hidden bits compared, {undecided} left open by float32"
    )
    print(f"  size          {report.source_bytes / 1024:.0f} KiB of float weights before,")
    print(
        f"                {report.flash_bytes / 1024:.0f} KiB of constants after,"
        f" {report.arena_bytes} bytes of RAM"
    )
    print(f"  speed         {microseconds:.1f} microseconds an image on this machine, one core")
    print(f"  the C         {artifact.header}\n                {artifact.source}\n")


if __name__ == "__main__":
    main()
