"""Models of the first format, opened as they are: one manifest that holds all but the weights. Writes none."""

import json
from typing import Any

from data.errors import ModelError
from pipelines.bundle_files import MANIFEST, WEIGHTS, Paths, digest, parse_json, read_file
from pipelines.bundle_stored import CORE, FIRST, ID_SCHEME, Stored

KEYS = {"model_id", "format", *CORE, "files", "training", "sha256"}


def read_first_format(paths: Paths, where: str) -> tuple[str, Stored]:
    """The model's id and the model. Raises ModelError where any byte is not what was saved."""
    at = f"{where}/{MANIFEST}"
    content = read_file(paths, MANIFEST, where)
    manifest = parse_json(content, at)
    if (
        set(manifest) != KEYS
        or manifest["sha256"] != _digest(manifest)
        or json.dumps(manifest, indent=1) != content.decode()
    ):
        raise ModelError(f"{at}: expected the manifest that was saved, found an altered one. Train again.")
    if (
        not isinstance(manifest["files"], dict)
        or set(manifest["files"]) != {WEIGHTS}
        or set(paths) != {WEIGHTS, MANIFEST}
    ):
        raise ModelError(f"{where}: expected {WEIGHTS} and {MANIFEST} alone, found {', '.join(sorted(paths))}.")
    weights = read_file(paths, WEIGHTS, where, str(manifest["files"][WEIGHTS]))
    core = {key: manifest[key] for key in CORE}
    if not isinstance(manifest["training"], dict):
        raise ModelError(f"{at}: expected what is known of the training, found {manifest['training']!r}.")
    return str(manifest["model_id"]), Stored(core, {**manifest["training"], ID_SCHEME: FIRST}, weights)


def _digest(manifest: dict[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return digest(json.dumps(body, sort_keys=True).encode())[:16]
