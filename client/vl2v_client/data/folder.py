"""A data set on disk: `root/domain/class/file`, as every DomainBed data set, or a plain `root/class/file`."""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NoReturn

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import Sample
from vl2v_client.data.layout import refuse_one_level_too_high, refuse_parts
from vl2v_contract.texts import printable


def _shown_as_they_are(names: tuple[str, ...]) -> tuple[str, ...]:
    if any(printable(name) != name for name in names):
        raise ValueError("a class name has control characters")
    if len(set(names)) < len(names):
        raise ValueError("two classes have the same name")
    return names


ClassNames = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=255)], ...],
    Field(min_length=1, max_length=50_000, fail_fast=True),  # ImageNet-21k has 21,841
    AfterValidator(_shown_as_they_are),
]


def check_class_names(names: Sequence[str]) -> None:
    """Refuse classes that no card can name, before anything is bought for them.

    Raises:
        DataError: There are too many, or a name is too long or has control characters.
    """
    try:
        TypeAdapter(ClassNames).validate_python(tuple(names))
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"the class folders cannot be used ({reason[:1].lower()}{reason[1:]}): rename them") from error


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What counts as an image, as in torchvision's `ImageFolder`; other files are ignored."""

PLAIN_DOMAIN = "all"  # the one domain of a plain folder


@dataclass(frozen=True, slots=True)
class ClassFiles:
    """The image files of one class in one domain, in torchvision's order: folders by path, then files by name."""

    domain: str
    class_index: int
    paths: list[str]


@dataclass(frozen=True, slots=True)
class DomainDataset:
    """The labelled images below one folder, in torchvision's order: domain, class, then path.

    Files are plain paths, a tenth of the work of samples where there are millions.

    Attributes:
        root: The folder.
        class_names: Sorted; a sample's `class_index` points into it.
        domains: Sorted; `("all",)` for a plain folder.
        classes: Every image, by domain and class; each class has at least one.
        has_domains: False for a plain `root/class/file` folder, where generalisation cannot be measured.
        skipped: Image files that are left out, by their paths below the root.
    """

    root: Path
    class_names: tuple[str, ...]
    domains: tuple[str, ...]
    classes: tuple[ClassFiles, ...]
    has_domains: bool
    skipped: tuple[str, ...] = ()

    def without(self, skipped: Collection[str]) -> "DomainDataset":
        """Return the data set without these files, by their paths below the root; what it does not hold is none of it.

        Raises:
            DataError: A class of a domain has no other files.
        """
        if not skipped:
            return self
        places, kept = {str(self.root / name) for name in skipped}, []
        for one in self.classes:
            paths = [path for path in one.paths if path not in places]
            if not paths:
                name = self.class_names[one.class_index]
                raise DataError(
                    f"class {name!r} of domain {one.domain!r} in {self.root} has no readable image: add some"
                )
            kept.append(replace(one, paths=paths))
        return replace(self, classes=tuple(kept), skipped=tuple(sorted(skipped)))

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Every image."""
        return tuple(sample for domain in self.domains for sample in self.samples_of(domain))

    def samples_of(self, domain: str) -> tuple[Sample, ...]:
        """Return the images of one domain, in order."""
        classes = [one for one in self.classes if one.domain == domain]
        return tuple(Sample(Path(path), domain, one.class_index) for one in classes for path in one.paths)

    def source_domains(self, target_domain: str | None) -> tuple[str, ...]:
        """Return the domains to train on when `target_domain` is held out; all of them for `None`.

        Raises:
            DataError: There is no such domain, or nothing would be left to train on.
        """
        if target_domain is None:
            return self.domains
        if len(self.domains) < 2:
            raise DataError(
                f"{self.root} has one domain only, so {target_domain!r} cannot be held out: "
                "lay the images out as domain/class/file, or leave the target out"
            )
        if target_domain not in self.domains:
            raise DataError(f"{self.root} has no domain {target_domain!r}; it has: {', '.join(self.domains)}")
        return tuple(domain for domain in self.domains if domain != target_domain)


def open_dataset(root: Path) -> DomainDataset:
    """List a data set without opening its images.

    The layout is read from the structure: images two levels deep (`class/file`) make a plain folder, images three
    levels deep or more make domains. Hidden files and folders are skipped; within a class, deeper folders are walked.

    Raises:
        DataError: No such folder, no images, an empty class, domains with different classes, a mixture of layouts, or
            folders of another level.
    """
    if not root.is_dir():
        raise DataError(f"{root.absolute()} is not a folder: give the folder that holds the domain or class folders")
    top = _folders(root)
    flat = [name for name in top if _holds_images(root / name)]
    if flat:
        deep = [name for name in top if name not in flat and list_images(root / name)]
        if deep:
            raise DataError(
                f"{root} mixes two layouts: {flat[0]!r} holds images, {deep[0]!r} holds folders of images: "
                "use domain/class/file or class/file throughout"
            )
        refuse_parts(root, top, "classes")
        classes = tuple(_files_of_classes(root, top, PLAIN_DOMAIN))
        return DomainDataset(root, tuple(top), (PLAIN_DOMAIN,), classes, has_domains=False)
    folders = {domain: names for domain in top if (names := _folders(root / domain))}  # others are no domains
    class_names = sorted(set().union(*folders.values()))
    if not class_names:
        above = any(is_image(one.name) for one in _entries(root))
        remedy = f"give the folder above it, {root.absolute().parent}" if above else "lay them out so"
        raise DataError(
            f"{root} holds no images in class folders ({', '.join(IMAGE_SUFFIXES)}), as domain/class/file or "
            f"class/file: {remedy}"
        )
    refuse_parts(root, list(folders), "domains")
    refuse_one_level_too_high(root, {domain: _without_images(root / domain) for domain in folders})
    for domain, names in folders.items():
        missing = sorted(set(class_names) - set(names))
        if missing:
            raise DataError(
                f"{root / domain} lacks the classes {', '.join(missing)} that other domains have: "
                "give every domain the same class folders"
            )
    classes = tuple(one for domain in folders for one in _files_of_classes(root / domain, class_names, domain))
    return DomainDataset(root, tuple(class_names), tuple(folders), classes, has_domains=True)


def _without_images(folder: Path) -> dict[str, list[str]]:
    """Return the folders of a folder that hold no image of their own, each with the folders in it."""
    names = [name for name in _folders(folder) if not _holds_images(folder / name)]
    return {name: _folders(folder / name) for name in names}


def _files_of_classes(folder: Path, class_names: list[str], domain: str) -> Iterator[ClassFiles]:
    for class_index, class_name in enumerate(class_names):
        paths = list_images(folder / class_name)
        if not paths:
            raise DataError(f"{folder / class_name} is a class without images: add some or remove the folder")
        yield ClassFiles(domain, class_index, paths)


def list_images(folder: Path) -> list[str]:
    """Return image files at any depth, in torchvision's order: folders sorted by path, then files by name.

    Raises:
        DataError: A folder cannot be listed, or a name is not UTF-8.
    """
    walk = sorted(_walk(folder))
    found = [f"{parent}/{name}" for parent, files in walk for name in sorted(files) if is_image(name)]
    _check_names(found)
    return found


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield every folder that is not hidden, links too, with its files; none twice, for links to a parent."""
    seen: set[tuple[int, int]] = set()
    for parent, names, files in os.walk(folder, onerror=_refuse, followlinks=True):
        names[:] = [name for name in names if not is_hidden(name)]  # where the walk goes on
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            raise DataError(f"{parent} leads to a folder of {folder} that is listed already: remove that link")
        seen.add((status.st_dev, status.st_ino))
        yield parent, files


def _check_names(paths: list[str]) -> None:
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{os.fsencode(path)!r} has a name that is not UTF-8: rename it") from error


def _folders(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in _entries(folder) if entry.is_dir() and not is_hidden(entry.name))
    _check_names([f"{folder}/{name}" for name in names])
    return names


def _holds_images(folder: Path) -> bool:
    """Tell whether a folder holds an image of its own; it is read up to the first."""
    try:
        with os.scandir(folder) as entries:
            return any(is_image(one.name) and not one.is_dir() for one in entries)
    except OSError as error:
        _refuse(error)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        _refuse(error)


def is_image(name: str) -> bool:
    """Tell whether a file is taken for an image, by its name alone."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is passed over."""
    return name.startswith(".") or name == "__MACOSX"


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename} cannot be listed ({error.strerror}): check its permissions") from error
