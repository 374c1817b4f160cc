"""One exception tree with a closed set of codes.

    BnnccError
    |-- UsageError              the call or the command line is wrong             exit 2
    |-- UnsupportedModelError   the model is damaged, or asks for what we lack    exit 1
    |-- VerificationError       the generated C and the reference differ          exit 3
    |-- ToolchainError          a C compiler or the file system stood in the way  exit 1
    `-- InternalError           bnncc broke one of its own promises               exit 1

Every error carries one or more `Diagnostic`: what happened, where in the user's own layer names,
why, and what to do. `bnncc explain CODE` prints the long form kept in `EXPLANATIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "EXPLANATIONS",
    "BnnccError",
    "Diagnostic",
    "InternalError",
    "ToolchainError",
    "UnsupportedModelError",
    "UsageError",
    "VerificationError",
    "printable",
]

_LONGEST_NAME = 80


def printable(name: str) -> str:
    """Return `name` safe for a terminal: control characters escaped, at most 80 characters.

    Names come from the model file and are untrusted.
    """
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    if len(escaped) <= _LONGEST_NAME:
        return escaped
    return f"{escaped[: _LONGEST_NAME - 3]}..."


@dataclass(frozen=True)
class Diagnostic:
    """One finding: `what`, `where` (the user's names), `why`, and how to go on (`help`)."""

    code: str
    what: str
    where: str = ""
    why: str = ""
    help: str = ""

    def __str__(self) -> str:
        """Return the finding as the command line prints it, one aspect a line."""
        lines = [f"error[{self.code}]: {self.what}"]
        aspects = (("where:", self.where), ("why:  ", self.why), ("help: ", self.help))
        lines += [f"  {label} {text}" for label, text in aspects if text]
        return "\n".join(lines)


class BnnccError(Exception):
    """The root of everything bnncc raises on purpose."""

    exit_code = 1

    def __init__(
        self, code: str, what: str, *, where: str = "", why: str = "", help: str = ""
    ) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = (Diagnostic(code, what, where, why, help),)
        super().__init__(str(self))

    @classmethod
    def of(cls, diagnostics: Iterable[Diagnostic]) -> BnnccError:
        """Return one error that reports all of `diagnostics` (at least one) at once."""
        found = tuple(diagnostics)
        first = found[0]
        error = cls(first.code, first.what, where=first.where, why=first.why, help=first.help)
        error.diagnostics = found
        error.args = (str(error),)
        return error

    @property
    def code(self) -> str:
        """The code of the first diagnostic, such as `BNN007`."""
        return self.diagnostics[0].code

    def __str__(self) -> str:
        """Return every diagnostic, as the command line prints them."""
        return "\n".join(str(d) for d in self.diagnostics)


class UsageError(BnnccError):
    """An argument, option or array that does not fit."""

    exit_code = 2


class UnsupportedModelError(BnnccError):
    """The model is damaged, or asks for something bnncc does not do."""


class VerificationError(BnnccError):
    """The generated C, or a stage on the way to it, differs from the reference."""

    exit_code = 3


class ToolchainError(BnnccError):
    """A C compiler or the file system stood in the way."""


class InternalError(BnnccError):
    """bnncc broke one of its own promises; never the user's fault."""


EXPLANATIONS: dict[str, str] = {
    "BNN001": "The model file cannot be read: it does not exist, is a folder, or access is denied.",
    "BNN002": (
        "The file is not an ONNX model or a .tflite file, or it is cut short. bnncc reads the "
        "protobuf form that torch.onnx.export writes, and the flatbuffers of Larq Compute Engine. "
        "Export again, and compare the file's size with the original's."
    ),
    "BNN003": (
        "The onnx library's own checker or shape inference rejects the model, or its shapes or "
        "tables contradict each other. Exporters do write such files; the message names the node."
    ),
    "BNN004": (
        "The model keeps weights in separate files ('external data'), and one of them is missing, "
        "too short, or lies outside the model's own folder. A model file is untrusted input, so "
        "bnncc never follows such a path out of the folder."
    ),
    "BNN005": "The model needs more memory than bnncc is willing to take from an untrusted file.",
    "BNN006": (
        "An input dimension other than the batch is unknown. C code has fixed shapes. A dynamic "
        "batch (the first dimension) is accepted and fixed to 1; every other dimension must be a "
        "number: export without dynamic_axes / dynamic_shapes for it, or pass --shape NAME=1x784."
    ),
    "BNN007": (
        "The model uses operators that bnncc cannot compile yet. All of them are listed at once, "
        "with the ONNX nodes; a viewer of ONNX files shows where those stand."
    ),
    "BNN008": (
        "An operator is used with an attribute, element type or operand that is not supported."
    ),
    "BNN009": (
        "A weight, bias or BatchNorm statistic is NaN or infinite: the training diverged, or the "
        "file is damaged. No threshold can be read off such a layer."
    ),
    "BNN010": (
        "A BatchNorm variance is negative, or zero with epsilon zero, so that 1/sqrt(variance + "
        "epsilon) is not a number. PyTorch never writes such statistics; the file is damaged."
    ),
    "BNN012": (
        "The model draws random numbers (stochastic binarisation or dropout left on). There are "
        "no fixed weights or activations to compile. Export in eval mode."
    ),
    "BNN013": (
        "The file is a pickle (torch.save) or TorchScript. Loading one runs code from the file, so "
        "bnncc never does. Where you trust it, convert it: load it in Python, and write ONNX with "
        "torch.onnx.export(model.eval(), (example_input,), 'model.onnx')."
    ),
    "BNN014": (
        "The torch.export archive (.pt2) is damaged, or holds what could only be loaded by running "
        "it: pickles, compiled code, Python expressions. An archive is untrusted input, and "
        "PyTorch's own reader runs such parts, so bnncc looks through it before."
    ),
    "BNN015": (
        "PyTorch could not export the module to ONNX: its forward raised an exception, the "
        "exporter crashed or did not end, or what it wrote computes something else. It runs in a "
        "process of its own, so yours goes on. The message names the line of the model's code "
        "where that is known."
    ),
    "BNN016": (
        "A warning: a layer that is not the first has binary weights, but its input is real, and "
        "looks like what stands right before a sign: clipped to both sides of 0, or without an "
        "activation function. Much published BNN code binarises activations by x.data = sign(x), "
        "which exporters lose without a word, so that the file is another network. Layers behind "
        "a ReLU are not warned about: BinaryConnect and BWN are built so. Compare the file's "
        "outputs with your own model's; then export again without assignments to .data, or let "
        "--insert-sign put a Sign on the input of all such layers, --insert-sign-at LAYER of one. "
        "The C, and what verify compares with, are then the repaired model, and the report, the "
        "certificate and the C say so."
    ),
    "BNN020": "An option has a value that bnncc does not know; the message lists those it does.",
    "BNN021": (
        "An input declared with --input does not fit the model: unknown name, wrong element type, "
        "or a scale that is not a positive finite number."
    ),
    "BNN022": (
        "Compiling a PyTorch module needs example inputs, a tensor for each argument of forward: "
        "bnncc.compile(module, example_inputs=(torch.zeros(1, 784),)). Their shapes become those "
        "of the C function. A file knows its shapes, and takes none."
    ),
    "BNN030": (
        "A layer has no kernel: after all passes it is still in a form that no kernel implements. "
        "The message names the layer and the operation that is missing."
    ),
    "BNN031": (
        "The program does not fit into --max-flash or --max-ram, whichever kernels its layers "
        "take. Flash is that of all constants, which is exact, and of the code, an estimate; RAM "
        "is the arena and a bound on the stack. The message says what the smallest takes, and what "
        "most of that is for. Layers given by --kernel LAYER=shared stay as given."
    ),
    "BNN040": (
        "No C compiler was found. bnncc compile needs none; verify, load and the demo do. Install "
        "gcc or clang, or name one in the environment variable CC."
    ),
    "BNN041": (
        "The C compiler rejected the generated code or could not finish it; its output is shown."
    ),
    "BNN042": "An array does not have the shape or element type that the compiled model takes.",
    "BNN043": "The compiled model returned a non-zero status: a null pointer was passed to it.",
    "BNN044": (
        "PyTorch is needed to read this file, and is not installed: pip install 'bnncc[torch]'. "
        "ONNX files need no PyTorch."
    ),
    "BNN050": "The output folder or a file in it cannot be written. Nothing was left half-written.",
    "BNN060": (
        "Verification found a difference between the float reference and what bnncc made of the "
        "model, beyond what float32 rounding can explain. This is a bug in bnncc: please report it "
        "with the model, or with the files that `bnncc compile --dump-dir` writes."
    ),
    "BNN061": "The data given to verify does not fit: missing array, wrong shape, type or labels.",
    "BNN090": (
        "A compiler pass broke its contract: it changed what the model computes, or left an "
        "ill-formed graph. This is a bug in bnncc. Compile again with --dump-dir to write every "
        "stage, and report the files."
    ),
    "BNN091": (
        "bnncc reached a state its authors thought impossible. This is a bug: please report it."
    ),
}
