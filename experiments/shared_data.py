"""Where the real data lie that the project uses in place and does not ship."""

import os
from pathlib import Path


def shared_folder(given: str | None, name: str) -> Path:
    """The data set `name` under `given`, $JAXFC_SHARED_DATA or ../shared/data.

    **Raises:** `FileNotFoundError` that says where it looked.
    """
    repository = Path(__file__).resolve().parents[1]
    root = given or os.environ.get("JAXFC_SHARED_DATA") or repository.parent / "shared" / "data"
    folder = Path(root) / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; pass --data or set JAXFC_SHARED_DATA to the folder that "
            f"holds {name}."
        )
    return folder
