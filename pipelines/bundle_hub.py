"""A stored model from the Hugging Face hub: its own files alone, sized before they are fetched. Opens none of them."""

from pathlib import Path

from data.errors import ModelError
from pipelines.bundle_files import LARGEST

RETRY = "Check the name, the revision and the network; a private model needs `hf auth login`."


def fetch_files(repo: str, revision: str | None) -> dict[str, Path]:
    """Name -> path in the hub's cache. `repo` is OWNER/NAME, `revision` a commit, tag or branch, None the newest.

    Where the hub is out of reach, what its cache holds of that revision. Raises ModelError where there is nothing.
    """
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        _refuse_absurd(repo, revision)
        snapshot = Path(snapshot_download(repo, revision=revision, allow_patterns=sorted(LARGEST)))
    except (HTTPError, OSError, HFValidationError, ValueError, KeyError, TypeError) as error:
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ModelError(f"{repo}: expected a model's folder or one on the hub, found: {said[0]} {RETRY}") from error
    return {name: (snapshot / name).resolve() for name in LARGEST if (snapshot / name).is_file()}


def _refuse_absurd(repo: str, revision: str | None) -> None:
    """ModelError where a file is said to be larger than any model's. Silent where the hub is out of reach."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError

    try:
        files = snapshot_download(repo, revision=revision, allow_patterns=sorted(LARGEST), dry_run=True)
    except DryRunError:
        return
    for file in files:
        if (file.file_size or 0) > LARGEST[file.filename]:
            raise ModelError(
                f"{repo}: expected {file.filename} of at most {LARGEST[file.filename]} bytes, found {file.file_size}. "
                "It is not fetched."
            )
