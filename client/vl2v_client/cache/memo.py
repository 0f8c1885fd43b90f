"""What a run reads of a cache beside its vectors: hashes of files and views, and features; kept or of one process."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from vl2v_client.cache.feature_store import FeatureFolder, FeatureStore
from vl2v_client.cache.store import FileContent, FileStamp


class Memo(Protocol):
    """Hashes already computed: `cache.store.ContentMemo` and `SessionMemo`. Losing them costs time only."""

    def files(self, stamps: Collection[FileStamp]) -> dict[FileStamp, FileContent]:
        """Return the contents of those files whose stamp is as remembered, if they were decoded."""

    def remember_files(self, contents: Iterable[tuple[FileStamp, FileContent]]) -> None:
        """Keep what was read."""

    def views(self, view_keys: Iterable[bytes]) -> dict[bytes, str]:
        """Return content hashes of those views that are remembered, by a hash of what decides their pixels."""

    def remember_views(self, contents: Sequence[tuple[bytes, str]]) -> None:
        """Keep the content hashes of rendered views."""


class RunCache(Protocol):
    """What a run reads of a cache beside its vectors: `cache.store.EmbeddingCache` and `SessionCache`."""

    @property
    def contents(self) -> Memo:
        """Hashes of files and views."""

    @property
    def features(self) -> FeatureStore | FeatureFolder | None:
        """What frozen students have said of views; `None` keeps nothing."""


class SessionMemo:
    """Hashes that one process remembers, in memory.

    Args:
        known: Contents of files that it knows from the start.
    """

    def __init__(self, known: Mapping[FileStamp, FileContent] | None = None) -> None:
        self._files, self._views = dict(known or {}), dict[bytes, str]()

    def files(self, stamps: Collection[FileStamp]) -> dict[FileStamp, FileContent]:
        """See `Memo`."""
        return {stamp: self._files[stamp] for stamp in stamps if stamp in self._files}

    def remember_files(self, contents: Iterable[tuple[FileStamp, FileContent]]) -> None:
        """See `Memo`."""
        self._files.update(contents)

    def views(self, view_keys: Iterable[bytes]) -> dict[bytes, str]:
        """See `Memo`."""
        return {key: self._views[key] for key in view_keys if key in self._views}

    def remember_views(self, contents: Sequence[tuple[bytes, str]]) -> None:
        """See `Memo`."""
        self._views.update(contents)


class SessionCache:
    """A cache that holds no vectors, of one process: it opens no SQLite.

    Attributes:
        contents: Hashes of files and views.
        features: What frozen students have said of views, if it is kept.
    """

    def __init__(
        self, known: Mapping[FileStamp, FileContent] | None = None, features: FeatureFolder | None = None
    ) -> None:
        self.contents: Memo = SessionMemo(known)
        self.features: FeatureStore | FeatureFolder | None = features
