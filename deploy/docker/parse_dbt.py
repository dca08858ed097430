"""Parse the dbt project for staging and production, as the image is built: ``parse_dbt.py FOLDER``.

Needs ``ML_ASSETS_PROJECT``, which every address is derived from; leaves an empty folder where it is not set.
"""

import os
import sys
from pathlib import Path

from ml_assets.backends.environments import Environment
from ml_assets.resources import dbt_of


def main(folder: Path, variables: dict[str, str]) -> list[Path]:
    """Return the manifests made below a folder, which is a home as ``ML_ASSETS_HOME`` names one."""
    (folder / "dbt").mkdir(parents=True)
    if not variables.get("ML_ASSETS_PROJECT"):
        return []
    # Parsing opens nothing, so it needs no credentials.
    known = {"ML_ASSETS_CREDENTIALS": "attached", "ML_ASSETS_TRACKER": "disabled", "ML_ASSETS_HOME": str(folder)}
    names = ("staging", "production")
    return [dbt_of(Environment.of({**variables, **known, "ML_ASSETS_ENV": name})).prepare() for name in names]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{path}\n" for path in main(Path(sys.argv[1]), dict(os.environ))))
