"""The only door through which zarr reads: every chunk is weighed before it is decoded."""

from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from embodied_reward.data.formats import limits
from embodied_reward.data.formats.zarr_codecs import refuse_bomb
from embodied_reward.data.formats.zarr_files import Files
from embodied_reward.errors import DatasetError

_METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")


class GuardedStore(Store):
    """A read-only zarr store of one array.

    Args:
        files: where the bytes are.
        codec: what compressed the chunks, None where they are raw.
        chunk_bytes: size of a decoded chunk [byte].
        fill: whether chunks that are not there mean the fill value.
    """

    def __init__(self, files: Files, codec: str | None, chunk_bytes: int, *, fill: bool) -> None:
        super().__init__(read_only=True)
        self._files, self._codec = files, codec
        self._bytes, self._fill = chunk_bytes, fill

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GuardedStore) and other._files.path == self._files.path

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a file's content, or None if there is none. Raises DatasetError."""
        metadata = key.rsplit("/", 1)[-1] in _METADATA
        data = self._metadata(key) if metadata else self._chunk(key)
        return None if data is None else prototype.buffer.from_bytes(_part(data, byte_range))

    def _metadata(self, key: str) -> bytes | None:
        size = self._files.size(key)
        if size is None:
            return None
        limits.fits(f"'{key}' in '{self._files.path}'", size, limits.TEXT)
        return self._files.raw(key)

    def _chunk(self, key: str) -> bytes | None:
        where, size = f"chunk '{key}' of '{self._files.path}'", self._files.size(key)
        if size is None:
            if self._fill:
                return None
            raise DatasetError(
                f"{where} is missing: a copy stopped early, or a writer left out chunks of zeros; "
                "in the second case pass --layout.missing_chunks=fill"
            )
        # No compressor makes its input much larger.
        limits.fits(where, size, self._bytes + self._bytes // 8 + 4096)
        data = self._files.raw(key)
        refuse_bomb(self._codec, data, self._bytes, where)
        return data

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of files."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return self._files.size(key) is not None

    @property
    def supports_writes(self) -> bool:
        """Nothing is written."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """Nothing is deleted."""
        return False

    @property
    def supports_listing(self) -> bool:
        """Names are known beforehand."""
        return False

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse."""
        raise NotImplementedError(key)

    async def delete(self, key: str) -> None:
        """Refuse."""
        raise NotImplementedError(key)

    async def list(self) -> AsyncIterator[str]:
        """Yield nothing."""
        for key in ():
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield nothing."""
        for key in (prefix,)[:0]:
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield nothing."""
        for key in (prefix,)[:0]:
            yield key


def _part(data: bytes, wanted: ByteRequest | None) -> bytes:
    match wanted:
        case RangeByteRequest(start=start, end=end):
            return data[start:end]
        case OffsetByteRequest(offset=offset):
            return data[offset:]
        case SuffixByteRequest(suffix=suffix):
            return data[-suffix:]
        case _:
            return data
