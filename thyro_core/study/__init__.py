"""A study from its plan to its status, and the split jobs it consists of."""
