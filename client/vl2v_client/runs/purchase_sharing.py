"""Hand a purchase on to other runs or processes, as one file that is mapped into memory."""

from pathlib import Path

from vl2v_client.cache.purchase_file import PurchaseFile
from vl2v_client.cache.purchase_writer import SharedPurchasePlan, write_purchase_file
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import RunError
from vl2v_client.planning.file_contents import read_files, stamp_of
from vl2v_client.planning.queries import identity_of, view_keys
from vl2v_client.planning.query_plan import PlannedRun


def hand_on(planned: PlannedRun, cache: EmbeddingCache, of: str, path: Path) -> PurchaseFile:
    """Write what the cache holds of a plan, and open the file.

    Args:
        planned: What was bought.
        cache: The client's.
        of: Names what it was bought for.
        path: The file.

    Raises:
        RunError: Images have changed since the plan was made.
        CacheError: The file cannot be written.
    """
    queries, plan = planned.queries, planned.plan
    names = view_keys(queries.images, cache, size=plan.teacher.image_size)
    contents = cache.contents.views(dict.fromkeys(names))
    for query, name, key in zip(queries.images, names, plan.image_keys, strict=True):
        # a name is of a file as it is now: its content must be the one whose answer was bought
        content_sha = contents.get(name, "")
        if identity_of(plan.teacher, "image", content_sha).cache_key() != key:
            raise beyond_the_purchase(query.name)
    contents_of = read_files((sample.path for sample in queries.split.sources), cache)
    files = {stamp_of(path.absolute()): content for path, content in contents_of.items()}
    used = frozenset((*plan.used_image_keys, *plan.text_keys))
    shared = SharedPurchasePlan(of, plan.teacher, plan.image_keys, plan.text_keys, used, names, files)
    write_purchase_file(path, shared, cache)
    return PurchaseFile(path)


def beyond_the_purchase(name: str) -> RunError:
    """Return what to raise for a query that is not part of a purchase that is done."""
    return RunError(
        f"{name} is beyond the one purchase that is done: files or the vendor's model have changed since; put them "
        "back, or choose another report.out, where what is bought already costs nothing"
    )
