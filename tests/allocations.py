"""How large the tensors are that a computation makes, for tests that something is never built."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """Within this context, `elements` is kept at the size of the largest tensor computed, backward pass included."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(part.numel() for part in tree_leaves(made) if isinstance(part, Tensor))])
        return made
