"""What can be proven of an elementwise chain without running it: direction and rounding."""
