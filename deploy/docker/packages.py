"""What the image installs: the dependencies in pyproject.toml, and whether nothing else came with them.

``packages.py requirements EXTRA...`` prints the dependencies and those of the extras, one a line; ``packages.py check
TORCH`` fails where the environment of this interpreter has a package, or a version, that constraints.txt does not name.
TORCH is the build of torch: ``cpu``, or one with CUDA, such as ``cu130``, which says itself what else it needs.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

# What a fresh environment has of its own.
_TOOLS = {"pip", "setuptools"}
_CUDA = ("nvidia-", "cuda-", "triton")


def requirements(extras: Iterable[str], folder: Path = Path()) -> list[str]:
    """Return what the project needs with these extras; KeyError for one it does not have."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(line for extra in extras for line in optional[extra])]


def not_locked(installed: Iterable[tuple[str, str]], constraints: str, *, torch: str) -> list[str]:
    """Return the packages that the lock has not, or has in another version; the build of a version does not count."""
    lines = [line.partition("#")[0].strip() for line in constraints.splitlines()]
    locked = {(_name(name), version) for name, _, version in (line.partition("==") for line in lines if line)}
    found = {(_name(name), version.partition("+")[0]) for name, version in installed}
    of_torch = () if torch == "cpu" else _CUDA
    return sorted(
        f"{name}=={version}" for name, version in found - locked if name not in _TOOLS and not name.startswith(of_torch)
    )


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: list[str]) -> str:
    """Return what the command line asks for, or raise SystemExit with what is wrong."""
    if arguments[:1] == ["requirements"]:
        return "\n".join(requirements(arguments[1:]))
    if len(arguments) != 2 or arguments[0] != "check":
        raise SystemExit(str(__doc__))
    installed = [(found.metadata["Name"], found.version) for found in distributions()]
    if unknown := not_locked(installed, Path("constraints.txt").read_text(), torch=arguments[1]):
        raise SystemExit(f"installed, but not as constraints.txt says: {', '.join(unknown)}; add them to the lock")
    return f"{len(installed)} packages, each as constraints.txt says"


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
