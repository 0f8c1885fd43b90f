"""Leave one domain out, with DomainBed's hold-out: which image trains, selects or judges.

Source: facebookresearch/DomainBed, `misc.seed_hash`, `misc.split_dataset` and `scripts/train.py`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import Sample
from vl2v_client.data.folder import DomainDataset

HOLD_OUT = 0.2  # share of each domain that is kept for selection


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
    def sources(self) -> tuple[Sample, ...]:
        """All images of the source domains."""
        return self.train + self.validation

    @property
    def target(self) -> tuple[Sample, ...]:
        """The whole target domain; empty if nothing was held out."""
        return self.target_in + self.target_out


def split(dataset: DomainDataset, *, target_domain: str | None, seed: int = 0) -> Split:
    """Split a data set: per domain as DomainBed does, per class for a plain folder.

    The split of a domain depends on its place among the domains and on `seed`, DomainBed's `trial_seed`, never on the
    target, so that one purchase serves the runs of all targets. Without a target all domains are trained on.

    Raises:
        DataError: An unknown target, a single domain with a target, or too few images for a hold-out.
    """
    sources = dataset.source_domains(target_domain)
    train: list[Sample] = []
    validation: list[Sample] = []
    target_in: tuple[Sample, ...] = ()
    target_out: tuple[Sample, ...] = ()
    for domain in dataset.domains:
        samples, (held, kept) = dataset.samples_of(domain), _cut_domain(dataset, domain, seed)
        if domain == target_domain:
            target_in, target_out = tuple(samples[row] for row in kept), tuple(samples[row] for row in held)
            continue
        _require_hold_out(dataset, domain, held, kept)
        train += [samples[row] for row in kept]
        validation += [samples[row] for row in held]
    return Split(tuple(train), tuple(validation), target_in, target_out, target_domain, sources)


def training_files(dataset: DomainDataset, *, target_domain: str | None, seed: int = 0) -> dict[str, list[str]]:
    """Return the paths that `split` would train on, by source domain, in its order.

    Raises:
        DataError: As `split`.
    """
    found = {}
    for domain in dataset.source_domains(target_domain):
        paths = [path for one in dataset.classes if one.domain == domain for path in one.paths]
        held, kept = _cut_domain(dataset, domain, seed)
        _require_hold_out(dataset, domain, held, kept)
        found[domain] = [paths[row] for row in kept]
    return found


def seed_hash(*parts: int | str) -> int:
    """Return DomainBed's seed for a tuple of parts: the MD5 of the tuple's text, modulo 2^31."""
    return int(hashlib.md5(str(parts).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


def split_rows(rows: Sequence[int], shuffle_seed: int, *, at_least: int = 0) -> tuple[list[int], list[int]]:
    """Split rows as DomainBed does: shuffle, then hold out the first of them; return these and the rest."""
    shuffled = list(rows)
    np.random.RandomState(shuffle_seed).shuffle(shuffled)
    held = max(at_least, int(len(shuffled) * HOLD_OUT))
    return shuffled[:held], shuffled[held:]


def _cut_domain(dataset: DomainDataset, domain: str, seed: int) -> tuple[list[int], list[int]]:
    """Return the rows of a domain's images that are held out, and the rest."""
    counts = [len(one.paths) for one in dataset.classes if one.domain == domain]
    if dataset.has_domains:
        return split_rows(range(sum(counts)), seed_hash(seed, dataset.domains.index(domain)))
    starts = accumulate(counts, initial=0)
    # of each class of a plain folder at least one image is held out, unless it has no other
    cuts = [
        split_rows(range(start, start + count), seed_hash(seed, class_index), at_least=min(1, count - 1))
        for class_index, (start, count) in enumerate(zip(starts, counts, strict=False))
    ]
    held, kept = (list(chain.from_iterable(rows)) for rows in zip(*cuts, strict=True))
    return held, kept


def _require_hold_out(dataset: DomainDataset, domain: str, held: Sequence[int], kept: Sequence[int]) -> None:
    if not held:
        what = f"domain {domain!r} of {dataset.root}" if dataset.has_domains else str(dataset.root)
        raise DataError(f"{what} has {len(kept)} images, too few to hold out {HOLD_OUT:.0%} for selection: add images")
