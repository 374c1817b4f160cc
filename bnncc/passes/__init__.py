"""Graph to graph, one pass a file; `bnncc.pipeline` has them in order and enforces the contract.

A pass is pure: no mutation, randomness, clock or IO. It returns the same object when nothing
matched, is idempotent, keeps the graph's interface, the names of tensors that survive and the
origins of nodes, and returns what it refused, with the reason, as values. Nothing is ever
approximated silently.
"""
