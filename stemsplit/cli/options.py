"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Output = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the stems go.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A model's name (see stemsplit models), hf://OWNER/NAME[@REVISION], or the path of a .safetensors file.",
    ),
]
RegistryFile = Annotated[
    Path | None, typer.Option("--registry", metavar="FILE", help="A models.toml of your own, which adds to ours.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where the network runs; auto takes the fastest there is.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace stems that exist.")]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON object to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")]
