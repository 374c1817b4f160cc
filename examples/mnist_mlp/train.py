"""Train the multi-layer perceptron of the BNN paper on MNIST, and make C of it.

    python examples/mnist_mlp/train.py --data mnist             # the four .gz files lie there
    python examples/mnist_mlp/train.py --data mnist --url URL   # missing ones come from URL/NAME.gz
    python examples/mnist_mlp/train.py --quick                  # a minute, to see it work

Beside what every script writes there are mnist_mlp.onnx, sample.npz (every 20th test image, with
its label) and figures.json (what was run, and what came out).

Source: Courbariaux et al. 2016, "Binarized Neural Networks", appendix, "MLP on MNIST (Theano)": the
network, inputs in [-1, 1] without augmentation, square hinge loss, Adam, rates that decay
exponentially, dropout, BatchNorm on minibatches of 100, and the choice of the epoch by the last
10 000 training images.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from bnncc.nn import bake_weights, float_twin, parameter_groups
from bnncc.nn.models import bnn_mlp
from bnncc.nn.training import (
    ImageSet,
    Outcome,
    Plan,
    Recipe,
    download_mnist,
    exponential_decay,
    load_mnist,
    option_parser,
    parse_options,
    run,
    scale,
)

QUICK = {"hidden": 256, "epochs": 3, "images": 10_000}


def main(argv: Sequence[str] | None = None) -> list[Outcome]:
    """Run the script and return what came out."""
    args = options(argv)
    if args.url:
        download_mnist(args.url, args.data)
    splits = load_mnist(args.data, flat=True)

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(model, args.learning_rate, glorot=False)
        return torch.optim.Adam(groups, fused=True)

    decay = partial(exponential_decay, final=args.final_learning_rate / args.learning_rate)
    plan = Plan(args.epochs, args.batch_size, optimizer, decay)
    network = partial(bnn_mlp, args.hidden, args.layers, dropout=args.dropout)
    recipes = [Recipe("mnist_mlp", network, plan)]
    if args.twin:
        recipes.insert(0, Recipe("float_twin", lambda: float_twin(network()), plan, compiled=False))
    widths = "-".join(["784", *[str(args.hidden)] * args.layers, "10"])
    outcomes = run(f"MNIST, {widths}", recipes, splits, args)
    if outcomes and len(args.seed) == 1:
        assert isinstance(splits.test, ImageSet)
        ship(outcomes[-1], splits.test, args)
    return outcomes


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = option_parser(
        "Train the MNIST MLP of the BNN paper and compile it.",
        data=Path("../shared/data/mnist"),
        out=Path("out/mnist_mlp"),
        epochs=20,
        batch_size=100,
        learning_rate=3e-3,
    )
    parser.add_argument("--url", help="download the files missing in --data from here")
    parser.add_argument("--hidden", type=int, default=2048, help="width of the hidden layers")
    parser.add_argument("--layers", type=int, default=3, help="number of hidden layers")
    parser.add_argument("--dropout", type=float, default=0.1, help="share of hidden activations")
    parser.add_argument("--final-learning-rate", type=float, default=3e-5, help="of the last epoch")
    parser.add_argument(
        "--twin", action=argparse.BooleanOptionalAction, default=True, help="train the float twin"
    )
    parser.add_argument("--exporter", choices=("dynamo", "torchscript"), default="dynamo")
    parser.add_argument(
        "--weights",
        choices=("latent", "bipolar"),
        default="latent",
        help="of the ONNX: latent reals, binarised in the graph, or the +-1 values themselves",
    )
    return parse_options(parser, argv, QUICK)


def ship(outcome: Outcome, test: ImageSet, args: argparse.Namespace) -> None:
    """Write mnist_mlp.onnx, sample.npz and figures.json."""
    export_onnx(outcome.model, args.out / "mnist_mlp.onnx", args.exporter, args.weights)
    sample = test[::20]
    images, labels = sample.images.numpy(), sample.labels.numpy().astype(np.uint8)
    np.savez_compressed(args.out / "sample.npz", images=images, labels=labels)
    with torch.no_grad():
        hits = outcome.model(scale(test.images)).argmax(1) == test.labels
    names = ("hidden", "layers", "epochs", "batch_size", "learning_rate", "final_learning_rate")
    given = {name: getattr(args, name) for name in (*names, "dropout", "exporter", "weights")}
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
    figures = {
        "command": f"python examples/mnist_mlp/train.py {flags} --seed {args.seed[0]} --no-twin",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "best_epoch": outcome.history.best.epoch,
        "validation_accuracy": outcome.history.best.accuracy,
        "test_images": len(test),
        "test_correct": int(hits.sum()),
        "sample_images": len(sample),
        "sample_correct": int(hits[::20].sum()),
    }
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


def export_onnx(model: nn.Module, path: Path, exporter: str, weights: str) -> None:
    """Write `model` as one ONNX file with a free batch size and nothing about this machine."""
    if weights == "bipolar":
        model = bake_weights(model)
    batch = {"dynamic_axes": {"image": {0: "batch"}, "logits": {0: "batch"}}}
    if exporter == "dynamo":
        # Optimising would fold BatchNorm into each layer whose weights are constants by then,
        # which leaves weights that are no longer +-1 and sums that are no longer integers.
        batch = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "optimize": False}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, we do not
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own deprecations
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


if __name__ == "__main__":
    main()
