"""The five data sets of DomainBed as they were published, and what a folder lacks of one, before anything is bought.

Class names, image counts and their sources are in `published_sets.json`; where no public source gives the images of a
domain, their total alone is compared.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vl2v_client.config.presets import is_domain_net
from vl2v_client.data.folder import DomainDataset

FILE = Path(__file__).parent / "published_sets.json"
SHOWN = 5
"""Names in an error; the others are counted."""


@dataclass(frozen=True)
class PublishedSet:
    """One data set.

    Attributes:
        name: As the paper's tables have it.
        images: In all domains.
        domains: Images of each domain; `None` where no source gives them.
        classes: Folder names, the same in every domain.
        source: Of the counts and names.
        duplicates: Images that DomainBed removes after the download.
    """

    name: str
    images: int
    domains: Mapping[str, int | None]
    classes: tuple[str, ...]
    source: str
    duplicates: int = 0


def published_sets() -> dict[str, PublishedSet]:
    """Return the five data sets by name."""
    read = json.loads(FILE.read_text())
    return {name: PublishedSet(name, **values | {"classes": tuple(values["classes"])}) for name, values in read.items()}


def find_faults(dataset: DomainDataset, published: PublishedSet, duplicates: Path | None = None) -> list[str]:
    """Return a sentence with its remedy for everything in which a folder differs from a published data set.

    Args:
        dataset: Listing of the folder.
        published: What it should be.
        duplicates: List of images that must not be there, a path below the folder a line, as DomainBed's
            `misc/domain_net_duplicates.txt`.

    Raises:
        SystemExit: The list cannot be read.
    """
    return [
        *_wrong_names(dataset, published),
        *_wrong_counts(dataset, published),
        *([] if duplicates is None else _duplicates_left(dataset.root, duplicates)),
        *_wrong_folder(dataset.root, published),
    ]


def _wrong_names(dataset: DomainDataset, published: PublishedSet) -> Iterator[str]:
    yield from _differences(dataset.root, published.name, "domain", dataset.domains, published.domains, _plain)
    yield from _differences(dataset.root, published.name, "class", dataset.class_names, published.classes, str)


def _differences(
    root: Path, dataset: str, what: str, found: Iterable[str], wanted: Iterable[str], key: Callable[[str], str]
) -> Iterator[str]:
    found_by_key, wanted_by_key = {key(name): name for name in found}, {key(name): name for name in wanted}
    missing = [name for one, name in wanted_by_key.items() if one not in found_by_key]
    more = [name for one, name in found_by_key.items() if one not in wanted_by_key]
    if missing:
        yield f"{root} lacks the {what} {_shown(missing)} of {dataset}: add its folder, or rename it so"
    if more:
        yield f"{root} has the {what} {_shown(more)}, which {dataset} has not: move it elsewhere"


def _wrong_counts(dataset: DomainDataset, published: PublishedSet) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for of_class in dataset.classes:
        counts[of_class.domain] += len(of_class.paths)
    wanted_by_key = {_plain(domain): wanted for domain, wanted in published.domains.items()}
    for domain, found in counts.items():
        wanted = wanted_by_key.get(_plain(domain))
        if wanted is not None and found != wanted:
            place = f"{dataset.root / domain} has {found:,} images"
            yield f"{place}, {published.name} has {wanted:,} there: {_remedy(found, wanted)}"
    total = sum(counts.values())
    if None in published.domains.values() and total != published.images:
        remedy = _remedy(total, published.images)
        if total > published.images and published.duplicates:
            remedy = (
                f"DomainBed removes {published.duplicates:,} duplicates, those of its misc/domain_net_duplicates.txt; "
                "--duplicates FILE says which of them are left"
            )
        yield f"{dataset.root} has {total:,} images, {published.name} has {published.images:,}: {remedy}"


def _duplicates_left(root: Path, file: Path) -> list[str]:
    try:
        listed = file.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{file} cannot be read ({error}): give DomainBed's misc/domain_net_duplicates.txt") from error
    left = [line.strip() for line in listed if line.strip() and (root / line.strip()).exists()]
    return [f"{root} has {len(left):,} duplicates of {file}, {_shown(left)}: remove them"] if left else []


def _wrong_folder(root: Path, published: PublishedSet) -> list[str]:
    if is_domain_net(root) == (published.name == "DomainNet"):
        return []
    steps = "the paper's preset trains for 15,001 steps in a folder of DomainNet's name, for 5,001 in any other"
    name = "domain_net" if published.name == "DomainNet" else published.name
    return [f"{root} is named as another data set, and {steps}: rename it {name}"]


def _remedy(found: int, wanted: int) -> str:
    return "unpack it again, some images are missing" if found < wanted else "remove the images that were added"


def _plain(name: str) -> str:
    """Return a domain's name as `Real World`, `Real_World` and `RealWorld` share it."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more
