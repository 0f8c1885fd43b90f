"""Images that cannot be used, all of them at once: named before anything is bought, or left out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vl2v_client.cache.memo import RunCache
from vl2v_client.core.errors import BrokenFile, DataError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import Sample
from vl2v_client.data.splits import Split
from vl2v_client.data.views import canonical_view
from vl2v_client.planning.queries import ImageQuery, hash_views

_SHOWN = 20


def find_broken(
    samples: Sequence[Sample], cache: RunCache, *, size: int, progress: Progress = silent
) -> dict[Path, BrokenFile]:
    """Return the files that cannot be read or decoded; a file that was decoded before at `size` is not read again."""
    broken: dict[Path, BrokenFile] = {}
    looks = [ImageQuery(sample, canonical_view()) for sample in samples]
    hash_views(looks, cache, size=size, progress=progress, on_broken=broken.setdefault)
    return broken


def without_broken_target(parts: Split, cache: RunCache, *, size: int, progress: Progress = silent) -> Split:
    """Return a split without the target's images that cannot be used; for the end of a run, since it opens them."""
    broken = find_broken(parts.target, cache, size=size, progress=progress)
    kept = (tuple(one for one in some if one.path not in broken) for some in (parts.target_in, parts.target_out))
    target_in, target_out = kept
    return replace(parts, target_in=target_in, target_out=target_out)


@contextmanager
def naming_all_broken(
    samples: Sequence[Sample], cache: RunCache, *, size: int, progress: Progress = silent
) -> Iterator[None]:
    """Say of all samples which are broken, once the block has found one.

    Raises:
        DataError: In place of the first.
    """
    try:
        yield
    except BrokenFile as error:
        broken = find_broken(samples, cache, size=size, progress=progress)
        raise DataError(describe_broken(broken or {Path(): error}, len(samples))) from error


def describe_broken(broken: Mapping[Path, BrokenFile], count: int) -> str:
    """Return what is wrong with which of so many images, as lines, and what to do."""
    faults = list(map(str, broken.values()))
    remedy = "or leave out all that cannot be read with data.skip_broken"
    if len(faults) == 1:
        return f"{faults[0]}; {remedy}"
    head = f"{len(faults):,} of {count:,} images cannot be used; mend them, {remedy}:"
    more = [f"and {len(faults) - _SHOWN:,} more"] if len(faults) > _SHOWN else []
    return "\n".join([head, *faults[:_SHOWN], *more])
