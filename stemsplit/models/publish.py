"""Publishing a trained model on the Hugging Face Hub, from where `hf://owner/name` runs it."""

import re
from pathlib import Path

from stemsplit.errors import ModelError, UsageError
from stemsplit.models import checkpoint, headers, hub_client
from stemsplit.models.checkpoint import Header
from stemsplit.models.registry import REPO, WEIGHTS_NAME, ModelSpec
from stemsplit.version import DISTRIBUTION, __version__

CARD = "README.md"
_REQUEST_SECONDS = 60.0  # without a byte, while the Hub stores a large file; the client would wait forever
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def push(path: Path, repo: str, *, license: str = "", private: bool = False) -> str:
    """Upload a model in one commit, with a model card unless the repository has one.

    Args:
        path: A model saved by stemsplit.
        repo: Repository, `owner/name`; it is created if it does not exist.
        license: License of the weights by its name on the Hub, such as `mit`; empty if not stated.
        private: Create a private repository, and refuse one that exists and is public.

    Returns:
        The commit, 40 hexadecimal digits.

    Raises:
        UsageError: The name of the repository or of the license is invalid.
        ModelError: The file is not a model that stemsplit has trained, or the Hub refuses it.
        UnreachableError: The Hub cannot be reached.
    """
    if not REPO.fullmatch(repo):
        raise UsageError(f"invalid repository name {repo!r}", "write OWNER/NAME")
    if license and not _LICENSE.fullmatch(license):
        raise UsageError(f"{license!r} is not a licence name on the Hub", "write mit, apache-2.0, cc-by-4.0, ...")
    header = _read_own(path)
    spec = ModelSpec(name=repo, summary="", license=license, repo=repo, revision="main")
    hub_client.check_reachable(spec, publishing=True)
    client = hub_client.client()
    client.get_session().timeout = _REQUEST_SECONDS
    with hub_client.translated_errors(spec, WEIGHTS_NAME):
        api = client.HfApi(library_name="stemsplit", library_version=__version__)
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise ModelError(f"the repository {repo!r} exists and is public", "name another, or leave --private out")
        files = [client.CommitOperationAdd(WEIGHTS_NAME, path)]
        if not api.file_exists(repo, CARD):
            files.append(client.CommitOperationAdd(CARD, model_card(header, repo, license).encode()))
        commit = api.create_commit(repo, files, commit_message=f"Upload a model trained with stemsplit {__version__}")
    return str(commit.oid)


def _read_own(path: Path) -> Header:
    """Return the header of a model that stemsplit has trained; other weights are not the user's to publish.

    Raises:
        ModelError: The file is not such a model.
    """
    with checkpoint.open_weights(path) as file:
        is_own = headers.KEY in (file.metadata() or {})
    header = checkpoint.load(path).header if is_own else None
    if header is None or header.notes:  # where others' weights come from is noted when they are converted
        message = f"{str(path)!r} was not trained by stemsplit, so its licence is not yours to give"
        raise ModelError(message, "publish what  stemsplit train  has written", path=path)
    return header


def model_card(header: Header, repo: str, license: str) -> str:
    """Write the model card: Markdown, below the keys by which the Hub sorts models.

    Args:
        header: Header of the model.
        repo: Repository, `owner/name`.
        license: License by its name on the Hub; empty if not stated.
    """
    seconds, overlap = header.length / header.rate, (header.length - header.hop) / header.rate
    return f"""---
library_name: stemsplit
pipeline_tag: audio-to-audio
tags:
- music-source-separation
{f"license: {license}" if license else "# license: not stated by the author"}
---

# {repo.partition("/")[2]}

Separates songs into {", ".join(header.stems)}, with stemsplit:

    pipx install {DISTRIBUTION}
    stemsplit song.mp3 --model hf://{repo}

| | |
|---|---|
| network | {header.family} |
| stems | {", ".join(header.stems)} |
| sample rate | {header.rate} Hz |
| channels | {header.channels} |
| windows | {seconds:g} s, overlapping by {overlap:g} s |

The author should add what it was trained on and how well it separates.
"""
