"""Train the MNIST network of the BNN paper and export it to ONNX.

    python train.py --data mnist                  # the four MNIST .gz files lie in mnist/
    python train.py --data mnist --url URL        # those missing there come from URL/NAME.gz

Writes into --out: mnist_mlp.onnx, sample.npz (every 20th test image, with its label) and
figures.json (what was run, and what came out).

Source: Courbariaux et al. 2016, "Binarized Neural Networks", appendix, "MLP on MNIST (Theano)":
the network, square hinge loss, Adam, an exponentially decaying learning rate, BatchNorm with
minibatches of 100.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from bnncc.nn import bake_weights, bnn_mlp, clip_weights_

SHA256 = {
    "train-images-idx3-ubyte": "71524e2cd1ad2968737f7f2f2ff69cbfc32df8ccddff51593f7cb2d4e0eb5b64",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def download(url: str, folder: Path) -> None:
    """Fetch the MNIST files that `folder` lacks from below `url`; each must have its SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, expected in SHA256.items():
        path = folder / f"{name}.gz"
        if path.exists():
            continue
        with urllib.request.urlopen(f"{url.rstrip('/')}/{path.name}", timeout=60) as response:
            content = response.read()
        actual = hashlib.sha256(content).hexdigest()
        if actual != expected:
            raise SystemExit(f"{path.name} from {url}: SHA-256 is {actual}, expected {expected}")
        path.write_bytes(content)


def read_idx(path: Path) -> Tensor:
    """Return the uint8 tensor of a gzipped idx file."""
    if not path.exists():
        raise SystemExit(f"{path} is missing: give its folder with --data, or --url to download")
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\x00\x00\x08":
        raise SystemExit(f"{path} is not an idx file of unsigned bytes")
    rank = content[3]  # then as many big-endian sizes, then the bytes
    shape = np.frombuffer(content, ">i4", rank, offset=4)
    pixels = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    return torch.from_numpy(pixels.reshape(shape).copy())


def read_split(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return the images, uint8 [N, 784], and labels, uint8 [N], of split "train" or "t10k"."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    return images.flatten(1), read_idx(folder / f"{split}-labels-idx1-ubyte.gz")


def scale(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [-1, 1)."""
    # 1/128 and not the usual 1/127.5: every x is then a multiple of 2^-7, each sum of 784 values
    # +-x a multiple of 2^-7 below 2^10, and so exact in float32 in whatever order it is taken.
    # That is why the compiler may feed the network the bytes themselves, with
    # --input uint8:0.0078125,-1, and compute provably what the float model computes.
    return images.float() / 128 - 1


def square_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of max(0, 1 - t * logits)^2, t being +1 for the true class and else -1."""
    targets = 2.0 * nn.functional.one_hot(labels.long(), logits.shape[1]) - 1.0
    return (1.0 - targets * logits).clamp(min=0.0).square().mean()


def train(model: nn.Module, images: Tensor, labels: Tensor, args: argparse.Namespace) -> None:
    """Train `model` in place and leave it in eval mode."""
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)
    decay = (args.final_learning_rate / args.learning_rate) ** (1 / max(1, args.epochs - 1))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
    for epoch in range(1, args.epochs + 1):
        model.train()
        start, total = time.perf_counter(), 0.0
        # BatchNorm needs more than one sample, so what does not fill a minibatch waits.
        batches = torch.randperm(len(images)).split(args.batch_size)
        batches = [batch for batch in batches if len(batch) == args.batch_size]
        for batch in batches:
            loss = square_hinge(model(scale(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            clip_weights_(model)
            total += loss.item()
        schedule.step()
        seconds = time.perf_counter() - start
        mean = total / len(batches)
        print(f"epoch {epoch}/{args.epochs}: loss {mean:.5f}, {seconds:.1f} s", flush=True)
    model.eval()


def count_correct(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Return how many images the model puts in their class; of equal logits the first wins."""
    with torch.no_grad():
        parts = [model(scale(part)).argmax(1) for part in images.split(1000)]
    return int((torch.cat(parts) == labels).sum())


def export_onnx(model: nn.Module, path: Path, exporter: str, weights: str) -> None:
    """Write `model` as one ONNX file with a free batch size and nothing about this machine."""
    if weights == "bipolar":
        model = bake_weights(model)
    batch: dict[str, Any] = {"dynamic_axes": {"image": {0: "batch"}, "logits": {0: "batch"}}}
    if exporter == "dynamo":
        # Optimising would fold BatchNorm into each layer whose weights are constants by then,
        # which leaves weights that are no longer +-1 and sums that are no longer integers.
        batch = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "optimize": False}
    torch.onnx.export(
        model,
        (torch.zeros(2, 784),),
        path,
        dynamo=exporter == "dynamo",
        external_data=False,
        input_names=["image"],
        output_names=["logits"],
        verbose=False,
        **batch,
    )
    exported = onnx.load(path)
    graph = exported.graph
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for part in (exported, graph, *graph.node, *values):
        part.ClearField("metadata_props")  # dynamo puts stack traces there, paths included
        part.ClearField("doc_string")
    onnx.save(exported, path)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Train the MNIST MLP and export it to ONNX.")
    parser.add_argument("--data", type=Path, default=Path("mnist"), help="folder of the idx files")
    parser.add_argument("--url", help="download the files missing in --data from here")
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to")
    parser.add_argument("--hidden", type=int, default=512, help="width of the hidden layers")
    parser.add_argument("--layers", type=int, default=3, help="number of hidden layers")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="of the first epoch")
    parser.add_argument("--final-learning-rate", type=float, default=3e-5, help="of the last one")
    parser.add_argument("--dropout", type=float, default=0.1, help="share of hidden activations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exporter", choices=("dynamo", "torchscript"), default="dynamo")
    parser.add_argument(
        "--weights",
        choices=("latent", "bipolar"),
        default="latent",
        help="export latent reals, binarised in the graph, or the +-1 values themselves",
    )
    return parser.parse_args(argv)


def write_figures(path: Path, args: argparse.Namespace, results: dict[str, int]) -> None:
    """Write what was run and what came out, without the names of this machine's folders."""
    settings = {k: v for k, v in vars(args).items() if k not in ("data", "url", "out")}
    options = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in settings.items())
    figures = {
        "command": f"python train.py {options}",
        **settings,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **results,
    }
    path.write_text(json.dumps(figures, indent=2) + "\n")


def main(argv: list[str] | None = None) -> nn.Module:
    """Run the script and return the trained model, in eval mode."""
    args = parse_arguments(argv)
    if args.url:
        download(args.url, args.data)
    torch.manual_seed(args.seed)
    model = bnn_mlp(args.hidden, args.layers, dropout=args.dropout)
    train(model, *read_split(args.data, "train"), args)

    images, labels = read_split(args.data, "t10k")
    sample = images[::20], labels[::20]
    results = {
        "test_images": len(images),
        "test_correct": count_correct(model, images, labels),
        "sample_images": len(sample[0]),
        "sample_correct": count_correct(model, *sample),
    }
    accuracy = results["test_correct"] / len(images)
    print(f"test accuracy: {accuracy:.2%} ({results['test_correct']} of {len(images)})")

    args.out.mkdir(parents=True, exist_ok=True)
    export_onnx(model, args.out / "mnist_mlp.onnx", args.exporter, args.weights)
    np.savez_compressed(args.out / "sample.npz", images=sample[0].numpy(), labels=sample[1].numpy())
    write_figures(args.out / "figures.json", args, results)
    return model


if __name__ == "__main__":
    main()
