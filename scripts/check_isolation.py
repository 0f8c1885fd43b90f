"""Prove that one side, installed alone, neither needs nor can reach the other side's dependencies.

Run by `make test-isolated` in an environment that holds `.[client,test]` or `.[vendor,test]` alone:

    python scripts/check_isolation.py client
    python scripts/check_isolation.py vendor
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import subprocess
import sys

ABSENT = {"client": ("fastapi", "sqlalchemy", "open_clip"), "vendor": ()}
UNIMPORTED = {"client": (), "vendor": ("timm",)}


def import_everything(package_name: str) -> int:
    """Import every module of a package; return how many there are."""
    package = importlib.import_module(package_name)
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package_name}.")]
    for name in names:
        if not name.endswith("__main__") and ".migrations.versions." not in name and not name.endswith(".env"):
            importlib.import_module(name)
    return len(names)


def main() -> None:
    side = sys.argv[1]
    for name in ABSENT[side]:
        if importlib.util.find_spec(name) is not None:
            sys.exit(f"{name} can be imported in an environment that should hold the {side} alone")
    count = import_everything("vl2v_contract") + import_everything(f"vl2v_{side}")
    count += import_everything("vl2v") if side == "client" else 0
    # open_clip imports timm itself; what is proved here is that our own sources never do.
    for name in UNIMPORTED[side]:
        found = subprocess.run(
            ["grep", "-rnE", f"^ *(import|from) {name}", *importlib.import_module(f"vl2v_{side}").__path__],
            capture_output=True,
            text=True,
        )
        if found.stdout:
            sys.exit(f"vl2v_{side} imports {name} itself:\n{found.stdout}")
    print(f"{side} alone: {count} modules import; absent: {', '.join(ABSENT[side]) or 'nothing required'}")


if __name__ == "__main__":
    main()
