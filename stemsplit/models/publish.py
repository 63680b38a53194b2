"""Trained models -> repositories on the Hugging Face Hub, from where `hf://owner/name` runs them."""

import re
from pathlib import Path

from stemsplit.errors import ModelError, UsageError
from stemsplit.models import checkpoint, hub, hub_client
from stemsplit.models.checkpoint import Header
from stemsplit.models.registry import FILE, REPO, ModelSpec
from stemsplit.version import __version__

CARD = "README.md"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def push(path: Path, repo: str, *, license: str = "", private: bool = False) -> str:
    """Upload a model to `repo`, "owner/name", which is made if need be, in one commit; gives that commit.

    A model card comes with it, unless the repository has one. `license` is what the author grants, as the Hub names it.
    `private` makes a repository that nobody else sees, and refuses one that exists and is public.

    Raises ModelError when the file is no model of ours, UnreachableError and ModelError as `hub.obtain` does.
    """
    if not REPO.fullmatch(repo):
        raise UsageError(f"{repo!r} is not the name of a repository", "write OWNER/NAME")
    header = checkpoint.load(path).header
    spec = ModelSpec(name=repo, summary="", license=license, repo=repo, revision="main")
    hub_client.require_network(spec)
    client = hub_client.client()
    if license and not _LICENSE.fullmatch(license):
        raise UsageError(
            f"{license!r} is not the name of a licence on the Hub", "write mit, apache-2.0, cc-by-4.0, ..."
        )
    seconds = 120 + path.stat().st_size / hub.SLOWEST
    with hub_client.in_our_words(spec, FILE), hub_client.deadline(seconds):
        api = client.HfApi(library_name="stemsplit", library_version=__version__)
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise ModelError(f"the repository {repo!r} exists, and is public", "name another, or leave --private out")
        files = [client.CommitOperationAdd(FILE, path)]
        if not api.file_exists(repo, CARD):
            files.append(client.CommitOperationAdd(CARD, model_card(header, repo, license).encode()))
        commit = api.create_commit(repo, files, commit_message=f"A model of stemsplit {__version__}")
    return str(commit.oid)


def model_card(header: Header, repo: str, license: str) -> str:
    """What the Hub shows of a model: Markdown under the keys that the Hub sorts models by."""
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

    pipx install stemsplit
    stemsplit song.mp3 --model hf://{repo}

| | |
|---|---|
| network | {header.family} |
| stems | {", ".join(header.stems)} |
| sample rate | {header.rate} Hz |
| channels | {header.channels} |
| windows | {seconds:g} s, overlapping by {overlap:g} s |

What it was trained on and how well it separates has to be added by its author.
"""
