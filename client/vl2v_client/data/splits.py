"""Leave one domain out, with DomainBed's hold-out: which image trains, selects or judges.

Source: facebookresearch/DomainBed, `misc.seed_hash`, `misc.split_dataset` and `scripts/train.py`.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import Sample
from vl2v_client.data.folder import DatasetFiles, DomainDataset

DEFAULT_HOLDOUT_FRACTION = 0.2


@dataclass(frozen=True, slots=True)
class Split:
    """Who may see which image. `target` is for the report alone: training, selection and buying never read it.

    Attributes:
        train: Training images of the source domains, in DomainBed's shuffled order.
        validation: The source domains' hold-out, for model selection.
        target_in: The target domain without its hold-out, which DomainBed's tables report.
        target_out: The target domain's hold-out.
        target_domain: `None` if nothing was held out, and generalisation is not measured.
        source_domains: The domains of `train` and `validation`, sorted.
    """

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    target_in: tuple[Sample, ...]
    target_out: tuple[Sample, ...]
    target_domain: str | None
    source_domains: tuple[str, ...]

    @property
    def target(self) -> tuple[Sample, ...]:
        """The whole target domain; empty if nothing was held out."""
        return self.target_in + self.target_out


def split(
    dataset: DomainDataset,
    *,
    target_domain: str | None,
    holdout_fraction: float = DEFAULT_HOLDOUT_FRACTION,
    seed: int = 0,
) -> Split:
    """Split a data set: per domain as DomainBed does, per class for a plain folder.

    The split of a domain depends on its place among the domains and on `seed`, never on the target, so that one
    purchase serves the runs of all targets.

    Args:
        dataset: What to split.
        target_domain: The domain to hold out, or `None` to train on all of them.
        holdout_fraction: Share of each domain kept for selection, above 0 and below 1.
        seed: DomainBed's `trial_seed`.

    Raises:
        DataError: An unknown target, a single domain with a target, or too few images for a hold-out.
    """
    _check_fraction(holdout_fraction)
    sources = dataset.source_domains(target_domain)
    if not dataset.has_domains:
        kept, held = _split_by_class(dataset, holdout_fraction, seed)
        _require_holdout(str(dataset.root), len(kept), len(held), holdout_fraction)
        return Split(tuple(kept), tuple(held), (), (), None, sources)

    parts: dict[str, tuple[list[Sample], list[Sample]]] = {}
    for index, domain in enumerate(dataset.domains):
        samples = dataset.samples_of(domain)
        held_rows, kept_rows = split_rows(len(samples), holdout_fraction, seed_hash(seed, index))
        parts[domain] = [samples[row] for row in kept_rows], [samples[row] for row in held_rows]
    for domain in sources:
        kept, held = parts[domain]
        _require_holdout(f"domain {domain!r} of {dataset.root}", len(kept), len(held), holdout_fraction)
    target_in, target_out = parts[target_domain] if target_domain is not None else ([], [])
    return Split(
        train=tuple(sample for domain in sources for sample in parts[domain][0]),
        validation=tuple(sample for domain in sources for sample in parts[domain][1]),
        target_in=tuple(target_in),
        target_out=tuple(target_out),
        target_domain=target_domain,
        source_domains=sources,
    )


def training_files(
    files: DatasetFiles, *, target_domain: str | None, holdout_fraction: float = DEFAULT_HOLDOUT_FRACTION, seed: int = 0
) -> dict[str, list[str]]:
    """Return the paths that `split` would train on, by source domain, in its order.

    Raises:
        DataError: As `split`.
    """
    _check_fraction(holdout_fraction)
    kept: dict[str, list[str]] = {}
    for domain in files.source_domains(target_domain):
        if files.has_domains:
            paths = files.paths_of(domain)
            shuffle_seed = seed_hash(seed, files.domains.index(domain))
            held_rows, kept_rows = split_rows(len(paths), holdout_fraction, shuffle_seed)
            kept[domain] = [paths[row] for row in kept_rows]
            _require_holdout(f"domain {domain!r} of {files.root}", len(kept_rows), len(held_rows), holdout_fraction)
        else:
            kept[domain] = []
            for of_one in files.classes:
                _, kept_rows = _cut_class(len(of_one.paths), holdout_fraction, seed, of_one.class_index)
                kept[domain] += [of_one.paths[row] for row in kept_rows]
            held = sum(len(of_one.paths) for of_one in files.classes) - len(kept[domain])
            _require_holdout(str(files.root), len(kept[domain]), held, holdout_fraction)
    return kept


def seed_hash(*parts: int | str) -> int:
    """Return DomainBed's seed for a tuple of parts: the MD5 of the tuple's text, modulo 2^31."""
    return int(hashlib.md5(str(parts).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


def split_rows(count: int, holdout_fraction: float, shuffle_seed: int) -> tuple[list[int], list[int]]:
    """Split `count` rows as DomainBed does: shuffle, then hold out the first `int(count * holdout_fraction)`.

    Returns:
        The held-out rows and the rest, both in shuffled order.
    """
    rows = list(range(count))
    np.random.RandomState(shuffle_seed).shuffle(rows)
    held = int(count * holdout_fraction)
    return rows[:held], rows[held:]


def _split_by_class(dataset: DomainDataset, fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Hold out at least one image of each class, unless the class has no other."""
    kept: list[Sample] = []
    held: list[Sample] = []
    for class_index in range(len(dataset.class_names)):
        samples = [sample for sample in dataset.samples if sample.class_index == class_index]
        held_rows, kept_rows = _cut_class(len(samples), fraction, seed, class_index)
        held += [samples[row] for row in held_rows]
        kept += [samples[row] for row in kept_rows]
    return kept, held


def _cut_class(count: int, fraction: float, seed: int, class_index: int) -> tuple[list[int], list[int]]:
    rows = list(range(count))
    np.random.RandomState(seed_hash(seed, class_index)).shuffle(rows)
    cut = min(max(1, int(count * fraction)), count - 1)
    return rows[:cut], rows[cut:]


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise DataError(f"the hold-out fraction {fraction} is not between 0 and 1: 0.2 is usual")


def _require_holdout(what: str, kept: int, held: int, fraction: float) -> None:
    if not held or not kept:
        total = kept + held
        raise DataError(f"{what} has {total} images, too few to hold out {fraction:.0%} for selection: add images")
