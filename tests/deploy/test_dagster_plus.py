"""dagster_cloud.yaml as Dagster+ reads it: by the model of its own command line."""

from pathlib import Path

import pytest
import yaml
from dagster_cloud_cli.config.loader import DagsterCloudLocationsConfigLoader
from pydantic import ValidationError

ROOT = Path(__file__).parents[2]


def load(path: Path, **context: str) -> list[dict[str, object]]:
    processed = DagsterCloudLocationsConfigLoader.load_from_template(str(path), context)
    return [location.model_dump(exclude_none=True) for location in processed.locations]


def test_it_names_the_one_code_location():
    (location,) = load(ROOT / "dagster_cloud.yaml")
    assert location["location_name"] == "ml_assets"
    assert location["code_source"] == {"module_name": "ml_assets.definitions"}
    folder = ROOT / str(location["build"]["directory"])  # type: ignore[index]
    assert (folder / "pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("place", "key"), [((), "location"), ((0,), "modul"), ((0, "code_source"), "modul_name"), ((0, "build"), "folder")]
)
def test_a_wrong_key_is_refused_wherever_it_stands(tmp_path: Path, place: tuple[int | str, ...], key: str):
    document = yaml.safe_load((ROOT / "dagster_cloud.yaml").read_text())
    spoilt = document
    for step in ("locations", *place) if place else ():
        spoilt = spoilt[step]
    spoilt[key] = "x"
    (tmp_path / "dagster_cloud.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ValidationError, match=key):
        load(tmp_path / "dagster_cloud.yaml")
