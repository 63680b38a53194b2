"""Logs for TensorBoard."""

from typing import TYPE_CHECKING

from stemsplit.errors import UsageError
from stemsplit.wording import one_line

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def load_summary_writer() -> "type[SummaryWriter]":
    """Return PyTorch's writer of logs.

    Raises:
        UsageError: The package `tensorboard` is missing, or unusable.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        hint = "pip install 'stemsplit-audio[train]', or leave out --tensorboard"
        raise UsageError("logs for TensorBoard need the package tensorboard, which is not installed", hint) from error
    except ImportError as error:
        hint = "pip install --upgrade 'stemsplit-audio[train]', or leave out --tensorboard"
        raise UsageError(f"the installed tensorboard is unusable: {one_line(error)}", hint) from error
    return SummaryWriter
