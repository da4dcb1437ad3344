"""The files of a model's folder: which there may be, their hashes, the one way they are written. No torch, no numbers.

Every JSON file has one canonical form, and a file in any other is refused: no two byte strings mean the same. So one
flipped bit anywhere, the manifest included, is found before anything is opened. What a forged folder with right hashes
holds is judged by `bundle_parts.py`; who made it, hashes cannot tell.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.errors import ModelError

FORMAT = 2
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TRAINING = "training.json"
CARD = "README.md"
FILES = (CARD, CONFIG, WEIGHTS, TRAINING)

_MIB = 2**20
DEEPEST = 32  # of JSON within JSON; a model's own is 5, and no reader that recurses comes near its limit
LARGEST = {MANIFEST: 64 * _MIB, CARD: _MIB, CONFIG: 64 * _MIB, TRAINING: 64 * _MIB, WEIGHTS: 16 * 1024 * _MIB}

Paths = Mapping[str, Path]
Contents = dict[str, bytes]


def list_files(folder: Path) -> dict[str, Path]:
    """Name -> path of what `folder` holds. ModelError where a name is none of a model's, or is no plain file."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise ModelError(f"{folder}: expected a model's folder, found: {error.strerror}.") from error
    for path in found:
        if path.name not in LARGEST or path.is_symlink() or not path.is_file():
            kind = "a link" if path.is_symlink() else "a file" if path.is_file() else "no plain file"
            raise ModelError(
                f"{folder}: expected the files of a model, {', '.join(sorted(LARGEST))}, and no other; "
                f"found {path.name!r}, {kind}. Remove it if you know what it is."
            )
    return {path.name: path for path in found}


def read_contents(paths: Paths, where: str) -> tuple[str, Contents]:
    """The model's id and its files' bytes, each as the manifest says. Raises ModelError where anything differs."""
    at = f"{where}/{MANIFEST}"
    manifest = parse_canonical(read_file(paths, MANIFEST, where), at)
    if seal(manifest)["sha256"] != manifest.get("sha256"):
        raise ModelError(f"{at}: expected the manifest that was saved, found an altered one. Train again.")
    if set(manifest) != {"format", "model_id", "files", "sha256"} or manifest["format"] != FORMAT:
        raise ModelError(
            f"{at}: expected a manifest of format 1 or {FORMAT}, found format {manifest.get('format')!r}. "
            "Where a newer Tapewire made it, update this one."
        )
    files = _said(manifest, at)
    if set(paths) != {*FILES, MANIFEST}:
        odd = ", ".join(sorted({*FILES, MANIFEST} ^ set(paths)))
        raise ModelError(f"{where}: expected the files that its manifest names, found others: {odd}. Restore it.")
    return str(manifest["model_id"]), {name: read_file(paths, name, where, *files[name]) for name in FILES}


def read_file(paths: Paths, name: str, where: str, sha256: str | None = None, size: int | None = None) -> bytes:
    """The bytes of one file, hashed as they were read. An absurd size is refused unread."""
    try:
        found = paths[name].stat().st_size
        if found > LARGEST[name] or (size is not None and found != size):
            most = f"at most {LARGEST[name]}" if size is None else str(size)
            raise ModelError(f"{where}/{name}: expected {most} bytes, found {found}. Restore it or train again.")
        content = paths[name].read_bytes()
    except (KeyError, OSError) as error:
        raise ModelError(
            f"{where}/{name}: expected a file of the model, found none. Restore it or train again."
        ) from error
    if sha256 is not None and digest(content) != sha256:
        raise ModelError(
            f"{where}/{name}: expected sha256 {sha256}, found {digest(content)}. Restore it or train again."
        )
    return content


def make_manifest(model_id: str, contents: Mapping[str, bytes]) -> bytes:
    """The manifest of files by their names, sealed."""
    files = {name: {"bytes": len(content), "sha256": digest(content)} for name, content in contents.items()}
    return canonical(seal({"format": FORMAT, "model_id": model_id, "files": files}))


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with its own digest, whatever `sha256` it came with."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return {**body, "sha256": digest(canonical(body))}


def canonical(tree: dict[str, Any]) -> bytes:
    """The one form of a JSON object: sorted keys, ASCII. ValueError for NaN and infinities."""
    return (json.dumps(tree, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def parse_canonical(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object in its canonical form. Raises ModelError in any other, so for numbers that are not finite."""
    tree = parse_json(content, where)
    try:
        same = canonical(tree) == content
    except ValueError:
        same = False
    if not same:
        raise ModelError(
            f"{where}: expected JSON as Tapewire writes it, of finite numbers, found it written otherwise."
        )
    return tree


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object. Raises ModelError where it is none, or nested deeper than any of a model's."""
    try:
        tree = json.loads(content.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: expected JSON, found: {error}. Restore it or train again.") from error
    if not isinstance(tree, dict):
        raise ModelError(f"{where}: expected a JSON object, found {type(tree).__name__}. Restore it or train again.")
    if _is_deep(tree):
        raise ModelError(f"{where}: expected JSON nested at most {DEEPEST} deep, found it deeper. Train again.")
    return tree


def _is_deep(tree: Any) -> bool:
    """Whether an object or array lies deeper than DEEPEST; level by level, so that no depth is too deep to tell."""
    level = [tree]
    for _ in range(DEEPEST):
        insides = (part.values() if isinstance(part, dict) else part for part in level)
        level = [each for inside in insides for each in inside if isinstance(each, dict | list)]
    return bool(level)


def digest(content: bytes) -> str:
    """sha256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _said(manifest: dict[str, Any], at: str) -> dict[str, tuple[str, int]]:
    """Name -> sha256 and size, as the manifest says. Only the names of a model are taken, so none is a path."""
    try:
        files = {str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in manifest["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{at}: expected a size and sha256 for every file, found: {error!r}.") from error
    if set(files) != set(FILES):
        raise ModelError(f"{at}: expected the files {', '.join(FILES)}, found {', '.join(sorted(files)) or 'none'}.")
    return files
