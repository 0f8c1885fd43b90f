"""What billing costs a real request: ViT-B/32 over HTTP on loopback, with billing and without, in one run.

Two vendors in one process share one model process, one decoding pool and the micro-batches, so that billing is all that
differs: one authenticates against the database, admits, charges with full durability (SQLite, `synchronous=FULL`) and
signs; the other takes every request as known and paid for. A load generator in a process of its own asks both in turns.
The weights are random: they cost what trained ones cost.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from PIL import Image
from result import Goal, write_result

from vl2v_contract.vectors import result_sha
from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.cli.server import bind, server_config
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, ApiKey, Budget, Budgets
from vl2v_vendor.domain.encoder import ModelInfo, PreparedItem
from vl2v_vendor.domain.errors import ItemFailure
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.service.preparation import Preparation
from vl2v_vendor.service.sale import Sale, SaleItem, SaleRequest
from vl2v_vendor.service.selling import Seller
from vl2v_vendor.service.services import Authenticator, Services
from vl2v_vendor.settings import Settings
from vl2v_vendor.web.app import create_app
from vl2v_vendor.web.connections import ConnectionLimits

ARCHITECTURE = "ViT-B-32"
ARMS = ("billing on", "billing off")
LOADS = {"1 client x 32 images": (1, 32), "32 clients x 1 image": (32, 1), "1 client x 1 image": (1, 1)}
GOAL_PERCENT = 5.0

Row = dict[str, object]


class NoAuthenticator(Authenticator):
    """Knows everybody."""

    def __init__(self, billed: Authenticator, key: ApiKey) -> None:
        super().__init__(billed.ledger, billed.clock)
        self._key = key

    async def authenticate(self, secret: str | None, scope: str) -> ApiKey:
        return self._key


class FreeSeller(Seller):
    """Encodes, and asks nobody."""

    def __init__(self, services: Services, preparation: Preparation, price: Price) -> None:
        self._services = services
        self.preparation = preparation
        self._price = price

    def check_model(self, model: str | None) -> ModelInfo:
        return self._services.encoder.info

    async def sell(self, caller: ApiKey, request: SaleRequest) -> Sale:
        info, lanes = self._services.encoder.info, self._services.lanes
        with lanes[request.modality].reserve(len(request.sources), key=caller.id):
            prepared = await self.preparation.prepare(request.modality, request.sources, key=caller.id)
        inputs = [item.model_input for item in prepared if isinstance(item, PreparedItem)]
        items = [SaleItem(key or "") for key in request.item_keys or []]
        for item, vector in zip(items, await lanes.encode(request.modality, inputs), strict=True):
            assert not isinstance(vector, ItemFailure)
            item.deliver("billed", vector, result_sha(vector), 0)
        return Sale(
            model_id=info.id,
            embedding_dim=info.embedding_dim,
            items=items,
            price=self._price,
            budgets=Budgets(Budget(2**40, 0), None),
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--images", type=int, default=128, help="of each arm in a round")
    options.add_argument("--out", type=Path)
    options.add_argument("--load", help=argparse.SUPPRESS)  # the load generator's own task
    chosen = options.parse_args()
    if chosen.load:
        print(json.dumps(asyncio.run(generate_load(**json.loads(chosen.load)))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(Path(folder), chosen.rounds, chosen.images))
    write_result("billing_overhead", rows, goals(rows), out=chosen.out)


async def measure(folder: Path, rounds: int, images: int) -> list[Row]:
    """Serve both arms and ask them in turns."""
    config, weights = save_random_model(folder)
    settings = Settings(data_dir=folder, model_config_file=config, pretrained=str(weights), log_level="warning")
    async with open_services(settings, lambda label, text: print(f"{label:>8}  {text}", file=sys.stderr)) as services:
        key, secret, price = await asyncio.to_thread(open_account, settings, services.encoder.info.id)
        seller = FreeSeller(services, services.seller.preparation, price)
        free = replace(services, authenticator=NoAuthenticator(services.authenticator, key), seller=seller)
        async with serving(services) as billed_url, serving(free) as free_url:
            urls = dict(zip(ARMS, (billed_url, free_url), strict=True))
            task = {"urls": urls, "secret": secret, "rounds": rounds, "images": images}
            words = [sys.executable, __file__, "--load", json.dumps(task)]
            child = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
            out, _ = await child.communicate()
            assert child.returncode == 0
    found: list[Row] = json.loads(out)
    return found


@asynccontextmanager
async def serving(services: Services) -> AsyncIterator[str]:
    """A server on a free port of loopback for as long as the block lasts; gives its URL."""
    limits = ConnectionLimits(1024)
    listener = bind("127.0.0.1", 0, limits)
    server = uvicorn.Server(server_config(create_app(services), limits))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await task


async def generate_load(urls: dict[str, str], secret: str, rounds: int, images: int) -> list[Row]:
    """Ask both arms for as many images in turns; how much longer billing took, paired by round."""
    pictures = [picture(seed) for seed in range(max(count for _, count in LOADS.values()))]
    bearer = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=64), headers=bearer) as http:

        async def ask(url: str, count: int, requests: int) -> None:
            for _ in range(requests):
                items = [{"image": image, "item_key": secrets.token_hex(32)} for image in pictures[:count]]
                answer = await http.post(f"{url}/v1/embeddings/images", json={"items": items})
                if answer.is_error:
                    raise RuntimeError(f"{answer.status_code}: {answer.text}")

        async def take_turn(arm: str, clients: int, count: int) -> float:
            requests = max(1, images // (clients * count))
            started = time.perf_counter()
            await asyncio.gather(*(ask(urls[arm], count, requests) for _ in range(clients)))
            return (time.perf_counter() - started) / (requests * clients * count)

        rows: list[Row] = []
        for load, (clients, count) in LOADS.items():
            for arm in ARMS:
                await take_turn(arm, clients, count)  # warm up
            turns: dict[str, list[float]] = {arm: [] for arm in ARMS}
            for number in range(rounds):
                for arm in ARMS if number % 2 else reversed(ARMS):
                    turns[arm].append(await take_turn(arm, clients, count))
            rows.append(compare(load, turns))
            print(rows[-1], file=sys.stderr)
    return rows


def compare(load: str, turns: dict[str, list[float]]) -> Row:
    """Milliseconds per image of both arms, and what billing adds, as the median over rounds."""
    on, off = (np.array(turns[arm]) for arm in ARMS)
    added = 100 * (on / off - 1)
    return {
        "load": load,
        "rounds": len(on),
        "billing_on_ms_per_image": round(float(np.median(on)) * 1000, 2),
        "billing_off_ms_per_image": round(float(np.median(off)) * 1000, 2),
        "billing_adds_percent": round(float(np.median(added)), 2),
        "standard_error_percent": round(float(np.std(added, ddof=1) / np.sqrt(len(added))), 2),
    }


def goals(rows: list[Row]) -> list[Goal]:
    """The acceptance line, for each load."""
    return [
        Goal(f"{row['load']}: billing adds, percent", value, f"<= {GOAL_PERCENT:g}", value <= GOAL_PERCENT)
        for row in rows
        for value in [float(str(row["billing_adds_percent"]))]
    ]


def picture(seed: int) -> str:
    """A 500 x 375 JPEG with some detail, in base64."""
    coarse = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()


def save_random_model(folder: Path) -> tuple[Path, Path]:
    """An open_clip configuration and checkpoint of the architecture with random weights."""
    import open_clip
    from safetensors.torch import save_file

    config, weights = folder / f"{ARCHITECTURE}.json", folder / f"{ARCHITECTURE}.safetensors"
    config.write_text(json.dumps(open_clip.get_model_config(ARCHITECTURE)))
    save_file(open_clip.create_model(ARCHITECTURE).state_dict(), weights)
    return config, weights


def open_account(settings: Settings, model_id: str) -> tuple[ApiKey, str, Price]:
    """A buyer with a budget that does not end."""
    engine = open_engine(settings.database)
    signer = load_or_create_secrets(settings.secrets_path).signer()
    staff = SqlAccounts(engine, signer=signer, clock=SystemClock())
    key, secret = staff.create_key(staff.create_account("bench", budget_units=2**40), scopes=DEFAULT_SCOPES)
    price = next(price for price in staff.prices(model_id) if price.modality == "image")
    engine.dispose()
    return key, secret, price


if __name__ == "__main__":
    main()
