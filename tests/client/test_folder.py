"""Data sets on disk: layouts, order, and what is refused."""

import os
from pathlib import Path

import pytest

from vl2v_client.core.errors import DataError
from vl2v_client.data.folder import open_dataset


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_domains_classes_and_samples_are_sorted_as_imagefolder_sorts(tmp_path: Path) -> None:
    root = _touch(
        tmp_path, "sketch/dog/b.png", "sketch/dog/a.png", "sketch/cat/1.JPG", "art/dog/1.png", "art/cat/9.png"
    )
    dataset = open_dataset(root)
    assert dataset.domains == ("art", "sketch")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.has_domains
    named = [(s.path.relative_to(root).as_posix(), s.domain, s.class_index) for s in dataset.samples]
    assert named == [
        ("art/cat/9.png", "art", 0),
        ("art/dog/1.png", "art", 1),
        ("sketch/cat/1.JPG", "sketch", 0),
        ("sketch/dog/a.png", "sketch", 1),
        ("sketch/dog/b.png", "sketch", 1),
    ]


def test_files_two_levels_deep_are_one_domain_called_all(tmp_path: Path) -> None:
    dataset = open_dataset(_touch(tmp_path, "cat/1.png", "dog/1.png"))
    assert (dataset.domains, dataset.class_names, dataset.has_domains) == (("all",), ("cat", "dog"), False)


def test_hidden_files_and_other_files_are_ignored(tmp_path: Path) -> None:
    root = _touch(tmp_path, "a/x/1.png", "a/x/._1.png", "a/x/notes.txt", ".cache/x/1.png", "shapes.json", "b/x/1.png")
    assert [s.path.name for s in open_dataset(root).samples] == ["1.png", "1.png"]


def test_deeper_folders_of_a_class_are_walked(tmp_path: Path) -> None:
    root = _touch(tmp_path, "a/x/1.png", "a/x/more/0.png", "b/x/1.png")
    assert [s.path.name for s in open_dataset(root).samples_of("a")] == ["1.png", "0.png"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["readme.txt"], ["no images"]),
        (["1.png"], ["no images"]),
        (["a/x/1.png", "a/y/note.txt", "b/x/1.png", "b/y/1.png"], ["a/y", "without images"]),
        (["a/x/1.png", "b/x/1.png", "b/y/1.png"], ["/a lacks", "y", "other domains"]),
        (["cat/1.png", "photo/cat/1.png"], ["mixes", "'cat'", "'photo'"]),
    ],
)
def test_a_bad_layout_is_refused_by_name(tmp_path: Path, names: list[str], words: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        open_dataset(_touch(tmp_path, *names))
    assert all(word in str(refused.value) for word in words)


def test_a_link_that_has_no_end_is_refused(tmp_path: Path) -> None:
    root = _touch(tmp_path, "a/x/1.png", "b/x/1.png")
    (root / "a" / "x" / "self").symlink_to(root / "a" / "x")
    with pytest.raises(DataError, match=r"a/x/self leads to a folder .* that is listed already"):
        open_dataset(root)


def test_a_link_in_a_hidden_folder_is_nobody_s_concern(tmp_path: Path) -> None:
    root = _touch(tmp_path, "a/x/1.png", "a/x/.cache/2.png", "b/x/1.png")
    (root / "a" / "x" / ".cache" / "back").symlink_to(root / "a" / "x")
    assert [sample.path.name for sample in open_dataset(root).samples_of("a")] == ["1.png"]


def test_a_link_to_another_folder_is_followed(tmp_path: Path) -> None:
    root = _touch(tmp_path / "data", "a/x/1.png", "b/x/1.png")
    (root / "a" / "x" / "more").symlink_to(_touch(tmp_path / "elsewhere", "2.png"))
    assert [sample.path.name for sample in open_dataset(root).samples_of("a")] == ["1.png", "2.png"]


@pytest.mark.parametrize("name", [b"a/x/caf\xe9.png", b"a/caf\xe9/1.png"])
def test_a_name_that_is_not_utf_8_is_refused_by_its_bytes(tmp_path: Path, name: bytes) -> None:
    root = _touch(tmp_path, "a/x/1.png", "b/x/1.png", os.fsdecode(name))
    with pytest.raises(DataError, match=r"caf\\xe9.* has a name that is not UTF-8"):
        open_dataset(root)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        open_dataset(tmp_path / "nowhere")


def test_an_unknown_target_lists_the_domains(tmp_path: Path) -> None:
    dataset = open_dataset(_touch(tmp_path, "art/x/1.png", "photo/x/1.png"))
    assert dataset.source_domains("art") == ("photo",)
    with pytest.raises(DataError, match=r"no domain 'sketch'; it has: art, photo"):
        dataset.source_domains("sketch")


@pytest.mark.parametrize("names", [["art/x/1.png"], ["x/1.png"]])
def test_one_domain_cannot_be_held_out(tmp_path: Path, names: list[str]) -> None:
    dataset = open_dataset(_touch(tmp_path, *names))
    assert dataset.source_domains(None) == dataset.domains
    with pytest.raises(DataError, match="one domain only"):
        dataset.source_domains("art")
