"""Print the functions of the vendor and the contract that one image request runs, from its first byte to its receipt.

    python scripts/request_walk.py [--list]

The request is the third of its kind, in one process over SQLite with the hash encoder: what is made once is there.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

import httpx
from PIL import Image

import vl2v_contract
import vl2v_vendor
from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.settings import Settings
from vl2v_vendor.web.app import create_app

ROOTS = tuple(str(Path(package.__path__[0])) for package in (vl2v_vendor, vl2v_contract))

walk: dict[tuple[str, str], None] = {}


def note(frame: FrameType, event: str, _argument: object) -> None:
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(ROOTS) and not code.co_name.startswith("<"):
        walk[code.co_filename.rpartition("vl2v_")[2], code.co_qualname] = None


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


async def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        values = {"data_dir": home, "database_url": f"sqlite:///{home}/vendor.db", "encoder": "hash"}
        settings = Settings.model_validate(values)
        async with open_services(settings, lambda _label, _text: None) as services:
            engine = open_engine(settings.database)
            signer = load_or_create_secrets(settings.secrets_path).signer()
            staff = SqlAccounts(engine, signer=signer, clock=SystemClock())
            _, secret = staff.create_key(staff.create_account("walk", budget_units=10), scopes=DEFAULT_SCOPES)
            engine.dispose()
            bearer = {"Authorization": f"Bearer {secret}"}
            transport = httpx.ASGITransport(create_app(services))
            async with httpx.AsyncClient(transport=transport, base_url="http://vendor", headers=bearer) as client:
                for shade in range(3):
                    walk.clear()
                    answer = await client.post("/v1/embeddings/images", files={"images": png(shade)})
                    answer.raise_for_status()
            found = list(walk)
    if "--list" in sys.argv:
        print("\n".join(f"{path}  {name}" for path, name in found))
    public = sum(not name.rpartition(".")[2].startswith("_") for _, name in found)
    print(f"{len(found)} functions, {public} of them public, in {len({path for path, _ in found})} files")


if __name__ == "__main__":
    threading.setprofile(note)
    sys.setprofile(note)
    asyncio.run(main())
