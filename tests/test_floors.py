"""The architecture, as data: imports go down only, and modules stay small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "stemsplit"

# From the bottom up. A module imports from floors below its own, never from its own.
FLOORS = [
    {"errors", "interruption", "replacing"},
    {"bars", "headers", "tables", "formats", "tags", "quantisation", "gapless", "settings", "machine", "wording"},
    {"registry", "decoding", "ogg", "stem_file", "playlists", "standard_input", "templates", "room"},
    {"audio", "store", "loading", "manifest"},
    {"inputs", "ahead"},
    {"tracks"},
    {"connection"},
    {"hub"},
    {"overview", "segments"},
    {"song_files"},
    {"song_index"},
    {"resampling", "windows", "stft", "wiener", "metrics", "songs", "devices", "tape"},
    {"datasets", "faults"},
    {"projection"},
    {"bss_eval"},
    {"encoders"},
    {"ffmpeg_encoding"},
    {"encoding"},
    {"networks._masking", "networks._layout", "networks._products"},
    {"networks._residual"},
    {"networks._demucs", "networks._transformer"},
    {"networks._hybrid"},
    {"networks.unet", "networks.demucs", "networks.hdemucs", "networks.htdemucs", "networks.spleeter"},
    {"networks"},
    {"checkpoint"},
    {"onnx_weights"},
    {"conversion"},
    {"publishing", "bags", "streams", "delivery"},
    {"mixdown"},
    {"separation"},
    {"evaluation"},
    {"comparison"},
    {"boards", "boxplot"},
    {"score_page", "museval_files"},
    {"score_folder"},
    {"training"},
    {"training.loss"},
    {"training.recipe"},
    {
        "training.vocoder",
        "training.ranks",
        "training.memory",
        "training.report",
        "training.events",
        "training.finetuning",
    },
    {"training.augmentation"},
    {"training.crops"},
    {"training.loader", "training.run"},
    {"training.fit"},
    {"console", "batch", "player", "diagnosis"},
    {"summary"},
    {"cli.completing", "cli.defaults", "cli.obtaining", "cli.pages"},
    {"cli.options"},
    {"cli.requests"},
    {"cli.batches"},
    {"cli.data", "cli.evaluating", "cli.learning", "cli.models", "cli.separating", "cli.doctor"},
    {"cli"},
    {"__main__"},
]
WITHOUT_TORCH = {
    "__init__",
    "errors",
    "interruption",
    "replacing",
    "headers",
    "tables",
    "registry",
    "decoding",
    "encoding",
    "audio",
    "resampling",
}
WITHOUT_TORCH |= {"formats", "tags", "quantisation", "gapless", "ogg", "stem_file", "encoders", "ffmpeg_encoding"}
WITHOUT_TORCH |= {"overview", "segments", "player", "song_files", "song_index", "console", "bars", "batch", "__main__"}
WITHOUT_TORCH |= {"store", "connection", "hub", "conversion", "loading", "settings", "machine", "diagnosis", "wording"}
WITHOUT_TORCH |= {
    "playlists",
    "standard_input",
    "templates",
    "room",
    "inputs",
    "manifest",
    "tracks",
    "ahead",
    "summary",
}
WITHOUT_TORCH |= {"delivery", "comparison", "boxplot", "boards", "score_page", "museval_files", "score_folder"}
WITHOUT_TORCH |= {"cli", "cli.batches", "cli.completing", "cli.data", "cli.defaults", "cli.doctor", "cli.evaluating"}
WITHOUT_TORCH |= {"cli.learning", "cli.models", "cli.obtaining", "cli.options", "cli.pages", "cli.requests"}
WITHOUT_TORCH |= {"cli.separating"}
LONGEST = 300  # lines


def module_name(path: Path) -> str:
    """`training/fit.py` -> `training.fit`, `training/__init__.py` -> `training`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """Full names of what a module imports, `from a import b` as `a.b`; without `lazy` only at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ["stemsplit", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def own_imports(path: Path) -> set[str]:
    """The package's modules that a module imports."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "stemsplit":
            # A module, or something in one; what is left over is in the package itself.
            found |= {known for end in (2, 3) if (known := ".".join(parts[1:end])) in MODULES}
    return found


def test_every_module_has_a_floor() -> None:
    assert sorted([name for floor in FLOORS for name in floor]) == sorted(set(MODULES) - {"__init__"})


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"__init__"}))
def test_imports_go_down(name: str) -> None:
    height = next(height for height, floor in enumerate(FLOORS) if name in floor)
    below: set[str] = set().union(*FLOORS[:height])
    # A package's __init__ is imported with every module of it.
    assert own_imports(MODULES[name]) - below <= {name.split(".")[0]} & {"networks", "training", "cli"}


def test_the_package_itself_imports_nothing() -> None:
    assert not {name for name in imports(MODULES["__init__"], lazy=False) if name.startswith("stemsplit")}


@pytest.mark.parametrize("name", sorted(WITHOUT_TORCH))
def test_the_light_floors_know_no_torch(name: str) -> None:
    assert not {module for module in imports(MODULES[name]) if module.split(".")[0] == "torch"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_stay_small(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert not {name.split(".")[-1] for name in MODULES} & {"utils", "util", "helpers", "misc", "common"}
