"""Checks of the settings in a family's configuration, which come from untrusted files."""

from collections.abc import Mapping


def check_sizes(config: object, limits: Mapping[str, tuple[int, int]]) -> None:
    """Check that settings are integers within their limits.

    Args:
        config: A family's configuration.
        limits: Lowest and highest value by the name of the field.

    Raises:
        ValueError: One is not.
    """
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number in {low}..{high}")


def check_flags(config: object, *names: str) -> None:
    """Check that settings are booleans.

    Args:
        config: A family's configuration.
        names: The fields to check.

    Raises:
        ValueError: One is not.
    """
    for name in names:
        if type(getattr(config, name)) is not bool:
            raise ValueError(f"{name} must be true or false")
