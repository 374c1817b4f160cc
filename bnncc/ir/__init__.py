"""The intermediate representation: types, operations, graphs, and the interpreter that runs them.

Imports neither onnx nor torch.
"""
