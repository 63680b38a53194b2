"""`stemsplit --help` must not wait for what it does not need; a fresh interpreter tells."""

import subprocess
import sys

import pytest
from support.program import HEAVY, imported_by

from stemsplit.networks.families import families


@pytest.mark.full
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["separate", "--help"],
        ["doctor", "--help"],
        ["app", "--help"],
        ["train", "--help"],
        ["data", "check", "--help"],
        ["evaluate", "--help"],
        ["models", "pull", "--help"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"import stemsplit.cli.main; sys.argv[1:] = {arguments!r}; stemsplit.cli.main.main()"
    loaded = imported_by(code)
    assert "stemsplit" in loaded
    assert not loaded & HEAVY


@pytest.mark.full
def test_a_bundled_model_does_not_wait_for_the_client_of_the_hub() -> None:
    code = "import stemsplit.cli.main; sys.argv[1:] = ['models', 'path', 'mini']; stemsplit.cli.main.main()"
    assert "huggingface_hub" not in imported_by(code)


def test_the_package_is_light() -> None:
    assert not imported_by("import stemsplit") & {*HEAVY, "typer"}


@pytest.mark.full
def test_what_refuses_a_song_does_not_wait_for_torch() -> None:
    code = "import stemsplit.cli.main; sys.argv[1:] = ['missing.wav', '-q']; stemsplit.cli.main.main()"
    assert "torch" not in imported_by(code)


@pytest.mark.full
@pytest.mark.parametrize("family", families())
def test_checking_a_file_of_weights_does_not_wait_for_a_compiler(family: str) -> None:
    """Networks that take no memory are made for it, and some functions of PyTorch are written in Python for these."""
    code = "import torch; from stemsplit.networks.families import build; torch.device('meta').__enter__(); "
    code += f"build({family!r}, {{}}, stems=4, channels=2)"
    show = "import sys; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"{code}; {show}"], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
