"""What only PEFT knows: which pattern fits a module, and what a config holds. The one module that imports PEFT."""

import logging
from collections.abc import Iterable, Mapping

# PEFT imports bitsandbytes where it is installed, which then warns of a kernel that we do not use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def matching_key(pattern: Iterable[str], module: str) -> str:
    """The first key of a pattern that fits a module's name by PEFT's rule, or else the name itself."""
    if not (keys := list(pattern)):
        return module
    from peft.utils.other import get_pattern_key

    key: str = get_pattern_key(keys, module)
    return key


def complete_config(settings: Mapping[str, object]) -> dict[str, object]:
    """The content of `adapter_config.json`: some settings of PEFT's `LoraConfig`, and PEFT's defaults for the others.

    Sets are written as sorted lists.
    """
    from peft import LoraConfig

    config = LoraConfig(**settings)  # type: ignore[arg-type]
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
