"""A thousand requests, one in twenty with a poisonous item: each item its own end, and nobody else notices."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import pytest
from http_target import Target
from load_generator import Outcome, answers_of, ask_all, close_after

from support.adversary.poison import KINDS, Item, Order, Verdict, gif_bomb, make_orders, needle, png_bomb
from support.proofs.proof_figures import Prove
from support.proofs.proof_vendor import OpenVendor, Size

CLIENTS = 32
BLOCK_ORDERS = 100
SHARE = 0.05
PATIENCE_SECONDS = 60.0
BOMBS_OF_EACH = 20
MEBIBYTE = 1024 * 1024


@dataclass
class Run:
    """Orders as they were answered, and the seconds that took."""

    orders: list[Order] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    async def add(self, target: Target, orders: list[Order]) -> None:
        requests = [order.request(target) for order in orders]
        started = time.monotonic()
        self.outcomes += await ask_all(target, requests, CLIENTS, timeout_seconds=PATIENCE_SECONDS)
        self.seconds += time.monotonic() - started
        self.orders += orders

    @property
    def hung(self) -> int:
        return sum(isinstance(outcome, TimeoutError) for outcome in self.outcomes)

    @property
    def lost(self) -> int:
        return len(self.outcomes) - len(answers_of(self.outcomes)) - self.hung

    @property
    def good_items(self) -> int:
        return sum(item.code is None for order in self.orders for item in order.items)


@dataclass
class Tally:
    """The verdicts of a poisoned run, held against a clean one."""

    wrong_ends: Counter[str] = field(default_factory=Counter)
    refused_kinds: set[str] = field(default_factory=set)
    largest_difference: float = 0.0

    def add(self, poisoned: Run, clean: Run) -> None:
        reference = {
            item.name: verdict
            for order, outcome in zip(clean.orders, clean.outcomes, strict=True)
            for item, verdict in zip(order.items, order.verdicts(answers_of([outcome])[0]), strict=True)
        }
        for order, outcome in zip(poisoned.orders, poisoned.outcomes, strict=True):
            for item, verdict in zip(order.items, order.verdicts(answers_of([outcome])[0]), strict=True):
                if item.code is not None:
                    self._expect_code(item.name, verdict, item.code)
                else:
                    self._expect_vector(item.name, verdict, reference[item.name])

    def _expect_code(self, name: str, verdict: Verdict, code: str) -> None:
        found = verdict if isinstance(verdict, str) else "sold"
        if found == code:
            self.refused_kinds.add(name)
        else:
            self.wrong_ends[f"{name}: {found}"] += 1

    def _expect_vector(self, name: str, verdict: Verdict, reference: Verdict) -> None:
        if isinstance(verdict, str) or isinstance(reference, str):
            self.wrong_ends[f"{name}: {verdict if isinstance(verdict, str) else 'sold, but not in the clean run'}"] += 1
        else:
            self.largest_difference = max(self.largest_difference, float(np.abs(verdict - reference).max()))


@pytest.mark.timeout(1200)
def test_poison_reaches_nobody_but_its_owner(
    open_vendor: OpenVendor, photos: list[bytes], size: Size, prove: Prove, prove_speed: Prove
) -> None:
    orders = make_orders(photos, int(size("REQUESTS", 120, 1000)), SHARE)
    with open_vendor() as vendor:
        customer = vendor.customer("buyers")
        target = customer.target()
        poisoned, clean = asyncio.run(close_after(_both_runs(target, orders), target))
        used_units = customer.used_units()
        is_ready, is_clean = vendor.is_ready(), vendor.verify_ledger()
    prove("requests that hung", poisoned.hung + clean.hung, goal="0", met=poisoned.hung + clean.hung == 0)
    prove("requests lost", poisoned.lost + clean.lost, goal="0", met=poisoned.lost + clean.lost == 0)
    tally = Tally()
    tally.add(poisoned, clean)
    wrong = tally.wrong_ends
    name = f"items with a wrong end, of {sum(len(order.items) for order in orders)}"
    prove(name, wrong.total(), goal=f"0 {list(wrong)[:3] or ''}".strip(), met=not wrong)
    kinds = len(tally.refused_kinds)
    prove("kinds of poison refused with their code", kinds, goal=str(len(KINDS)), met=kinds == len(KINDS))
    difference = float(f"{tally.largest_difference:.3g}")
    prove("neighbours' vectors against a clean run", difference, goal="<= 1e-06", met=difference <= 1e-6)
    excess = used_units - poisoned.good_items - clean.good_items
    prove("units billed for anything but good items", excess, goal="0", met=excess == 0)
    prove("ready, and the ledger verifies", str(is_ready and is_clean), goal="True", met=is_ready and is_clean)
    rate = round(clean.seconds / poisoned.seconds, 3)
    prove_speed("good items' rate against the clean run", rate, goal=">= 0.95", met=rate >= 0.95)


async def _both_runs(target: Target, orders: list[Order]) -> tuple[Run, Run]:
    """The orders and their clean counterparts, block by block in turns, after a warm-up."""
    poisoned, clean = Run(), Run()
    blocks = [orders[start : start + BLOCK_ORDERS] for start in range(0, len(orders), BLOCK_ORDERS)]
    cleaned = [[rest for order in block if (rest := order.clean) is not None] for block in blocks]
    whole = [order for order in orders if order.clean == order]
    warm_up = Run()
    await warm_up.add(target, whole[:CLIENTS])
    for number, (block, good) in enumerate(zip(blocks, cleaned, strict=True)):
        pair = [(poisoned, block), (clean, good)]
        for run, part in pair if number % 2 == 0 else reversed(pair):
            await run.add(target, part)
    # What the warm-up bought is in the bill as well.
    clean.orders += warm_up.orders
    clean.outcomes += warm_up.outcomes
    return poisoned, clean


@pytest.mark.timeout(300)
def test_bombs_are_refused_from_their_headers(
    open_vendor: OpenVendor, photos: list[bytes], prove: Prove, prove_speed: Prove
) -> None:
    bombs = {"169 MP PNG": png_bomb(), "4,295 MP GIF": gif_bomb(), "needle of 1 x 1,000,000": needle()}
    with open_vendor() as vendor:
        target = vendor.customer("bomber").target()
        asyncio.run(close_after(_send_all(target, photos[:5] * 4), target))
        vendor.reset_peak()
        before = vendor.peak_bytes()
        for name, bomb in bombs.items():
            found = asyncio.run(close_after(_send_all(target, [bomb] * BOMBS_OF_EACH), target))
            refusals = [seconds for seconds, code in found if code == "image_too_large"]
            prove(f"{name}: refused", len(refusals), goal=str(BOMBS_OF_EACH), met=len(refusals) == BOMBS_OF_EACH)
            milliseconds = round(1000 * median(refusals), 2)
            prove_speed(f"{name}: ms over HTTP, median", milliseconds, goal="<= 5", met=milliseconds <= 5)
        growth = round((vendor.peak_bytes() - before) / MEBIBYTE, 1)
    prove("memory growth, MiB", growth, goal="< 20", met=growth < 20)


async def _send_all(target: Target, files: list[bytes]) -> list[tuple[float, str]]:
    """One after the other, each in a request of its own: seconds, and the item's code or `sold`."""
    found = []
    for file in files:
        order = Order("multipart", (Item("file", file),))
        answer = await target.ask(order.request(target))
        (verdict,) = order.verdicts(answer)
        found.append((answer.seconds, verdict if isinstance(verdict, str) else "sold"))
    return found
