"""Compile the numbered layers of a model by torch.compile."""

from collections.abc import Iterable

from torch import nn

from deltaw.errors import UserError
from deltaw.model.names import block_of


def compile_layers(model: nn.Module, modules: Iterable[str]) -> None:
    """Let each numbered layer that holds one of `modules` compile itself, in place, when it runs first.

    Layers of one kind share the compiled code; the second length of rows compiles it once more, for any length.

    Raises:
        UserError: there is no C++ compiler.
    """
    _check_compiler()
    for block in filter(None, dict.fromkeys(map(block_of, modules))):
        model.get_submodule(block).compile()


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler  # late, because few runs compile
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UserError(
            f"model.compile=true needs a C++ compiler ({str(error).strip()}): install g++, name another in the "
            "environment variable CXX, or give model.compile=false"
        ) from None
