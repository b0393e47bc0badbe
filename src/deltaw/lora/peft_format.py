"""What PEFT makes of names and settings. The one module that imports PEFT."""

from collections.abc import Iterable


def matching_key(pattern: Iterable[str], module: str) -> str:
    """The first key that PEFT finds to fit a module's name; the name itself where none does."""
    if not (keys := list(pattern)):
        return module
    from peft.utils.other import get_pattern_key

    key: str = get_pattern_key(keys, module)
    return key


def lora_config(**settings: object) -> dict[str, object]:
    """What `adapter_config.json` holds, with PEFT's defaults; sets as sorted lists.

    Args:
        settings: of PEFT's `LoraConfig`.
    """
    from peft import LoraConfig

    config = LoraConfig(**settings)  # type: ignore[arg-type]
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
