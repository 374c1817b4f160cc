"""Graph to graph, one pass a file. `bnncc.pipeline` lists them in order and holds them to the contract.

A pass is pure: no mutation, randomness, clock or IO. It returns the same object when nothing matched,
is idempotent, keeps the graph's interface and the names of tensors that survive, keeps origins, and
returns what it refused, with the reason, as values. Nothing is ever approximated silently.
"""
