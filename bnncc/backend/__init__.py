"""From a PACKED graph to two C files: lower to a Program, plan memory, render templates."""
