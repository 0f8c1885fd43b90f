"""The cache file: what it keeps, who may read it, and what it says when it cannot."""

from __future__ import annotations

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from support.client.buying_bench import ask, buy, draw_pictures, plan_for
from support.client.fake_vendor import FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.bill import Damage, verify_holdings
from vl2v_client.cache.database import naming_faults
from vl2v_client.cache.purchases import Intent
from vl2v_client.cache.records import NOTHING, Paid
from vl2v_client.cache.store import EmbeddingCache, default_cache_path
from vl2v_client.core.deliveries import Delivery, FailedItem
from vl2v_client.core.errors import BudgetExhausted, CacheError, VendorChanged
from vl2v_client.core.values import TeacherModel
from vl2v_client.planning.query_plan import QueryPlan


@pytest.fixture
def bought(vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path) -> QueryPlan:
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 6)))
    buy(plan, client, cache)
    return plan


@pytest.fixture
def teacher(client: VendorClient) -> TeacherModel:
    return client.model()


def intents(count: int, price: int = 100) -> list[Intent]:
    return [Intent(f"{i:064x}", f"{i + 1000:064x}", "image", "c" * 64, price) for i in range(count)]


def test_the_file_is_private_and_its_secret_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "client.db"
    with EmbeddingCache(path) as cache:
        secret = cache.item_secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with EmbeddingCache(path) as again, EmbeddingCache(tmp_path / "other.db") as other:
        assert again.item_secret == secret
        assert len(secret) == 32
        assert other.item_secret != secret


def test_the_default_place_follows_xdg() -> None:
    assert default_cache_path({"XDG_DATA_HOME": "/data", "HOME": "/home/me"}) == Path("/data/vl2v/client.db")
    assert default_cache_path({"HOME": "/home/me"}) == Path("/home/me/.local/share/vl2v/client.db")


def test_vectors_come_back_by_key_and_missing_ones_are_named_once(cache: EmbeddingCache, bought: QueryPlan) -> None:
    keys = [*bought.image_keys, *bought.image_keys, "0" * 64, "0" * 64]
    vectors = cache.get_many(keys)
    assert set(vectors) == set(bought.image_keys)
    assert all(vector.shape == (16,) and vector.dtype == np.float16 for vector in vectors.values())
    assert cache.missing(keys) == ["0" * 64]


def test_many_keys_are_no_problem(cache: EmbeddingCache) -> None:
    keys = [f"{i:064x}" for i in range(40_000)]
    assert cache.get_many(keys) == {}
    assert cache.missing(keys) == keys


# Reservations


def test_reservations_never_pass_the_cap(cache: EmbeddingCache, teacher: TeacherModel) -> None:
    purchase = cache.purchases.open_purchase(teacher, max_units=5, max_amount_micro=None)
    assert len(cache.purchases.reserve(purchase, teacher, intents(4))) == 4
    with pytest.raises(BudgetExhausted, match="cap of 5"):
        cache.purchases.reserve(purchase, teacher, intents(6))
    assert len(cache.purchases.reserve(purchase, teacher, intents(5))) == 5  # the same four again, and one more
    cache.purchases.release([intent.item_key for intent in intents(2)])
    assert len(cache.purchases.reserve(purchase, teacher, intents(5)[:2])) == 2


def test_money_has_a_cap_of_its_own(cache: EmbeddingCache, teacher: TeacherModel) -> None:
    purchase = cache.purchases.open_purchase(teacher, max_units=None, max_amount_micro=399)
    with pytest.raises(BudgetExhausted, match="cap of 399"):
        cache.purchases.reserve(purchase, teacher, intents(4))
    assert cache.purchases.outstanding(teacher.ledger_id) == []


def test_threads_that_reserve_together_stay_below_the_cap(cache: EmbeddingCache, teacher: TeacherModel) -> None:
    purchase = cache.purchases.open_purchase(teacher, max_units=25, max_amount_micro=None)
    refused = []

    def reserve(intent: Intent) -> None:
        try:
            cache.purchases.reserve(purchase, teacher, [intent])
        except BudgetExhausted:
            refused.append(intent)

    threads = [threading.Thread(target=reserve, args=(intent,)) for intent in intents(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(refused), len(cache.purchases.outstanding(teacher.ledger_id)[0])) == (15, 25)


@pytest.mark.parametrize(
    ("code", "outstanding", "expired"),
    [("unknown_item", 0, 0), ("encoding_failed", 0, 0), ("item_key_mismatch", 1, 0), ("result_expired", 0, 1)],
)
def test_an_item_that_failed_is_released_unless_its_error_says_that_it_is_charged(
    cache: EmbeddingCache, teacher: TeacherModel, code: str, outstanding: int, expired: int
) -> None:
    purchase = cache.purchases.open_purchase(teacher, max_units=1, max_amount_micro=100)
    [intent] = cache.purchases.reserve(purchase, teacher, intents(1))
    cache.purchases.store(Delivery(failed=(FailedItem(intent.item_key, code, "no vector"),)))
    cache.purchases.release([intent.item_key] if expired else [])  # a later request for it was refused
    assert sum(map(len, cache.purchases.outstanding(teacher.ledger_id))) == outstanding
    assert cache.purchases.expired(teacher.ledger_id) == ({intent.item_key} if expired else set())


def test_what_was_taken_back_too_early_is_held_again_once_the_vendor_calls_it_charged(
    cache: EmbeddingCache, teacher: TeacherModel
) -> None:
    purchase = cache.purchases.open_purchase(teacher, max_units=1, max_amount_micro=100, task="one")
    [intent] = cache.purchases.reserve(purchase, teacher, intents(1))
    cache.purchases.release([intent.item_key])
    assert cache.purchases.spent("one") == NOTHING
    expired = Delivery(failed=(FailedItem(intent.item_key, "result_expired", "no vector"),))
    for _ in range(2):
        cache.purchases.store(expired)
        assert cache.purchases.spent("one") == Paid(1, 100)
    assert cache.purchases.expired(teacher.ledger_id) == {intent.item_key}


@pytest.mark.parametrize("ask", ["outstanding", "expired"])
def test_what_is_open_is_found_by_its_index_among_all_that_is_paid(
    cache: EmbeddingCache, teacher: TeacherModel, ask: str
) -> None:
    asked: list[str] = []
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        rows = cache.purchases._database.rows
        cache.purchases._database.rows = lambda query, values: asked.append(query) or rows(query, values)  # type: ignore[method-assign, func-returns-value]
        getattr(cache.purchases, ask)(teacher.ledger_id)
        steps = connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}", (teacher.ledger_id,)).fetchall()
    assert any("USING INDEX intents_open" in step[-1] for step in steps)


def test_what_an_older_program_took_back_is_sent_as_a_new_query(cache: EmbeddingCache, teacher: TeacherModel) -> None:
    purchase = cache.purchases.open_purchase(teacher, max_units=1, max_amount_micro=100, task="one")
    cache.purchases.reserve(purchase, teacher, intents(1))
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute("UPDATE intents SET state = 'planned', is_expired = 1")
        connection.execute("UPDATE purchases SET held_units = 0, held_amount_micro = 0")
    connection.close()
    cache.purchases.reserve(purchase, teacher, intents(1))
    assert cache.purchases.spent("one") == Paid(1, 100)


def test_what_is_expired_is_sent_again_outside_of_the_caps_of_the_purchase_that_wants_it(
    cache: EmbeddingCache, teacher: TeacherModel
) -> None:
    first = cache.purchases.open_purchase(teacher, max_units=1, max_amount_micro=100)
    [intent] = cache.purchases.reserve(first, teacher, intents(1))
    cache.purchases.store(Delivery(failed=(FailedItem(intent.item_key, "result_expired", "no vector"),)))
    second = cache.purchases.open_purchase(teacher, max_units=0, max_amount_micro=0)
    assert cache.purchases.reserve(second, teacher, [intent]) == [intent]
    with pytest.raises(BudgetExhausted, match="cap of 1"):
        cache.purchases.reserve(first, teacher, intents(2))


def test_purchases_of_one_task_are_added_up_without_what_was_taken_back(
    cache: EmbeddingCache, teacher: TeacherModel
) -> None:
    for task, chosen in (("a", slice(0, 3)), ("a", slice(3, 5)), ("b", slice(5, 6)), (None, slice(6, 9))):
        purchase = cache.purchases.open_purchase(teacher, max_units=9, max_amount_micro=None, task=task)
        cache.purchases.reserve(purchase, teacher, intents(9)[chosen])
    cache.purchases.release([intents(1)[0].item_key])
    assert [cache.purchases.spent(task) for task in "abc"] == [Paid(4, 400), Paid(1, 100), NOTHING]
    again = cache.purchases.open_purchase(teacher, max_units=9, max_amount_micro=None, task="b")
    cache.purchases.reserve(again, teacher, intents(2)[1:])  # what is sent anew is held once
    assert [cache.purchases.spent(task) for task in "ab"] == [Paid(3, 300), Paid(2, 200)]


def test_a_paid_item_is_not_reserved_again(cache: EmbeddingCache, bought: QueryPlan) -> None:
    purchase = cache.purchases.open_purchase(bought.teacher, max_units=0, max_amount_micro=0)
    paid = [Intent(item.item_key, item.cache_key, "image", item.content_sha, 1) for item in bought.missing]
    assert cache.purchases.reserve(purchase, bought.teacher, paid) == []


def test_a_delivery_is_stored_whole_or_not_at_all(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, teacher: TeacherModel
) -> None:
    purchase = cache.purchases.open_purchase(teacher, max_units=None, max_amount_micro=None)
    known = Intent("a" * 64, "1" * 64, "text", "c" * 64, 10)
    cache.purchases.reserve(purchase, teacher, [known])
    delivery = client.embed_texts(["a cat", "a dog"], ["a" * 64, "b" * 64], teacher)
    with pytest.raises(CacheError, match="never reserved"):
        cache.purchases.store(delivery)
    assert cache.missing(["1" * 64]) == ["1" * 64]
    assert cache.purchases.outstanding(teacher.ledger_id) == [["a" * 64]]
    assert list(cache.records.receipt_places(teacher.ledger_id, "acct_client")) == []


def test_two_receipts_for_one_place_in_the_chain_are_a_fork(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, bought: QueryPlan
) -> None:
    vendor.posted.pop()  # the vendor forgets the sale and sells that place in its chain again
    purchase = cache.purchases.open_purchase(bought.teacher, max_units=None, max_amount_micro=None)
    cache.purchases.reserve(purchase, bought.teacher, [Intent("a" * 64, "1" * 64, "text", "c" * 64, 10)])
    delivery = client.embed_texts(["a cat"], ["a" * 64], bought.teacher)
    with pytest.raises(VendorChanged, match="two different entries as number 2"):
        cache.purchases.store(delivery)


# Checking what is held


def test_a_sound_cache_verifies_and_counts(cache: EmbeddingCache, bought: QueryPlan) -> None:
    report = verify_holdings(cache)
    assert (report.items, report.is_clean) == (6, True)
    (vendor,) = cache.stats().vendors
    assert (vendor.paid_items, vendor.sent_items, vendor.billed_units, vendor.amount_micro) == (6, 0, 6, 600)


@pytest.mark.parametrize(
    ("statement", "damage", "count"),
    [
        ("DELETE FROM embeddings", Damage.NO_VECTOR, 6),
        ("DELETE FROM receipts", Damage.NO_RECEIPT, 6),
        ("UPDATE embeddings SET vector = zeroblob(32)", Damage.BAD_VECTOR, 6),
        (f"UPDATE embeddings SET vector = x'003c{'00' * 30}'", Damage.WRONG_HASH, 6),
        (
            "UPDATE receipts SET receipt_json = replace(receipt_json, '\"units\":6', '\"units\":5')",
            Damage.BAD_RECEIPT,
            6,
        ),
        ("UPDATE vendors SET keys_json = '[]'", Damage.BAD_RECEIPT, 6),
    ],
)
def test_damage_is_named(cache: EmbeddingCache, bought: QueryPlan, statement: str, damage: Damage, count: int) -> None:
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute(statement)
    connection.close()
    assert dict(verify_holdings(cache).damage) == {damage: count}


def test_a_damaged_receipt_names_the_file(cache: EmbeddingCache, bought: QueryPlan) -> None:
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute("UPDATE receipts SET receipt_json = '{}'")
    connection.close()
    with pytest.raises(CacheError, match=r"client\.db holds a damaged receipt"):
        verify_holdings(cache)


# Files that cannot be used


def test_a_full_disk_stops_before_anything_is_sent_and_loses_nothing(
    vendor: FakeVendor, client: VendorClient, cache: EmbeddingCache, tmp_path: Path
) -> None:
    vendor.max_items = 4
    plan = plan_for(vendor, cache, ask(draw_pictures(tmp_path / "data", 300)))
    pages = cache._database.rows("PRAGMA page_count")[0][0]
    cache._database.rows(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(CacheError, match="disk is full; free some space"):
        buy(plan, client, cache, workers=1)
    assert 0 < vendor.billed_units < 300
    cache._database.rows("PRAGMA max_page_count = 1000000")
    buy(plan, client, cache)
    assert vendor.billed_units == 300
    assert verify_holdings(cache).is_clean
    assert verify_holdings(cache).items == 300


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 500)
    with pytest.raises(CacheError, match="not a cache of vl2v"):
        EmbeddingCache(path)


def test_somebody_elses_database(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
    connection.close()
    with pytest.raises(CacheError, match="a database, but not a cache"):
        EmbeddingCache(path)


def test_a_cache_of_the_first_schema_is_brought_up_to_date_and_keeps_everything(
    cache: EmbeddingCache, bought: QueryPlan, teacher: TeacherModel
) -> None:
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute("ALTER TABLE intents DROP COLUMN is_expired")
        connection.execute("ALTER TABLE purchases DROP COLUMN account_id")
        connection.execute("ALTER TABLE purchases DROP COLUMN task")
        connection.execute("ALTER TABLE audited_heads DROP COLUMN accepted_seq")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    for _ in range(2):
        with EmbeddingCache(cache.path) as reopened:
            assert reopened.missing(bought.image_keys) == []
            assert reopened.purchases.expired(teacher.ledger_id) == set()
            assert reopened.purchases.spent("none") == NOTHING
            assert reopened.vendors.audited_head(teacher.ledger_id, "nobody") is None
            assert verify_holdings(reopened).is_clean


def test_a_newer_cache_asks_for_a_newer_program(tmp_path: Path) -> None:
    path = tmp_path / "client.db"
    EmbeddingCache(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CacheError, match=r"newer vl2v \(schema 99\)"):
        EmbeddingCache(path)


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"purchase\.cache"):
        EmbeddingCache(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"purchase\.cache"):
        EmbeddingCache(tmp_path / "file" / "client.db")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (sqlite3.SQLITE_BUSY, "another process holds it"),
        (sqlite3.SQLITE_READONLY, "may not be written"),
        (sqlite3.SQLITE_IOERR | (10 << 8), "disk failed"),
        (sqlite3.SQLITE_CORRUPT, "recover what was paid"),
    ],
)
def test_every_fault_names_the_file_and_the_remedy(code: int, says: str) -> None:
    error = sqlite3.OperationalError("oops")
    error.sqlite_errorcode = code
    with pytest.raises(CacheError, match=f"/x/client.db: oops: .*{says}"), naming_faults(Path("/x/client.db")):
        raise error


def test_pins_outlive_the_process(cache: EmbeddingCache, bought: QueryPlan) -> None:
    first = cache.vendors.first_key("fake-ledger")
    with EmbeddingCache(cache.path) as again:
        assert again.vendors.first_key("fake-ledger") == first is not None
        assert again.vendors.teacher("http://fake", None) == bought.teacher
