"""Damaged and hostile datasets, made from sound ones: what comes of each is one error.

Every case is a function that spoils a fresh copy of a small sound dataset and returns the path to
open. `python benchmarks/data_formats/table.py` opens all of them and prints the table of the docs;
`tests/data/test_malformed.py` asserts what the table says.
"""

import bz2
import gzip
import json
import lzma
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import foreign
import h5py
import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GIB = 2**30
CODEC_BOMBS = {
    "zlib": lambda: zlib.compress(bytes(16 * 2**20), 9),
    "gzip": lambda: gzip.compress(bytes(16 * 2**20), 9),
    "bz2": lambda: bz2.compress(bytes(16 * 2**20), 9),
    "lzma": lambda: lzma.compress(bytes(16 * 2**20)),
    "blosc": lambda: struct.pack("<4B3I", 2, 1, 0, 1, 2 * GIB - 1, 2**16, 20) + bytes(4),
    "zstd": lambda: numcodecs.Zstd().encode(bytes(16 * 2**20)),
    "lz4": lambda: struct.pack("<i", 2 * GIB - 1) + bytes(20),
    "imagecodecs_jpegxl": lambda: b"\xff\x0a" + (6 | (2**30 - 1) << 3).to_bytes(8, "little"),
    "imagecodecs_png": lambda: _png_header(30_000, 30_000),
}


@dataclass(frozen=True)
class Case:
    """One spoiled dataset.

    Attributes:
        family: the format.
        kind: what is wrong, as the table counts it.
        name: which variant.
        build: takes (sound datasets, an empty folder), returns the path to open.
        convert: the format to convert to, where the fault lies in what training does not read.
    """

    family: str
    kind: str
    name: str
    build: Callable[[Path, Path], Path]
    convert: str | None = None

    @property
    def id(self) -> str:
        """A name for test reports."""
        return f"{self.family}-{self.kind}-{self.name}".replace(" ", "_")


def sound(root: Path) -> Path:
    """Write one sound dataset of every format, from which cases are made."""
    demos = foreign.demos(lengths=(5, 3, 7))
    foreign.pusht(root / "zarr", demos, np.float32)
    foreign.pusht(root / "zarr3", demos, np.uint8, version=3)
    _zip(root / "zarr", root / "zip")
    foreign.robomimic(root / "hdf5", foreign.demos(widths=foreign.ROBOSUITE))
    (root / "ms").mkdir()
    foreign.maniskill(root / "ms" / "t.h5", foreign.demos(widths=foreign.MANISKILL))
    foreign.videos(root / "mp4")
    foreign.lerobot_v21(root / "v21", video=False)
    _noted_zarr(root / "zarr", root / "noted")
    _lerobot(root / "v3")
    return root


def cases() -> list[Case]:
    """Return every case."""
    made = [*_zarr(), *_zarr_ends(), *_zarr_record(), *_zips(), *_hdf5(), *_hdf5_links()]
    made += [*_hdf5_types(), *_maniskill(), *_mp4(), *_manifests(), *_v3(), *_v21()]
    ids = [case.id for case in made]
    assert len(set(ids)) == len(ids), sorted({i for i in ids if ids.count(i) > 1})
    return made


# --- helpers ---------------------------------------------------------------------------------


def _lerobot(root):
    from embodied_reward.data import EpisodeRecorder

    rng = np.random.default_rng(0)
    with EpisodeRecorder(root, fps=10, robot_type="arm") as recorder:
        for length in (4, 6):
            for t in range(length):
                row = {"action": rng.normal(size=2), "observation.state": rng.normal(size=3)}
                row |= {"next.success": t == length - 1, "progress": np.float32(t / length)}
                row["observation.images.top"] = rng.integers(0, 256, (8, 8, 3), np.uint8)
                recorder.add(row)
            recorder.save_episode("push")
        recorder.finish()


def _zip(folder, path, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def _noted_zarr(source, target):
    shutil.copytree(source, target)
    record = {
        "numbers": {"action": ["action"], "observation.state": ["state"]},
        "fps": 20.0,
        "orientation": "upright",
        "tasks": ["a", "b"],
    }
    (target / ".zattrs").write_text(json.dumps({"embodied_reward": record}))
    import zarr

    meta = zarr.open_group(str(target), mode="r+", zarr_format=2)["meta"]
    foreign.add_v2(meta, "task_index", np.array([0, 1, 0]))


def _copied(name, spoil, inside=""):
    """A case that copies a sound folder or file and lets `spoil` change the copy."""

    def build(root, folder):
        source, target = root / name, folder / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        spoil(target)
        return target / inside if inside else target

    return build


def _cut(file, keep):
    def spoil(path):
        place = path / file if file else path
        data = place.read_bytes()
        place.write_bytes(data[: int(keep * len(data))])

    return spoil


def _drop(file):
    def spoil(path):
        place = path / file
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return spoil


def _edit_json(file, **changes):
    def spoil(path):
        place = path / file
        found = json.loads(place.read_text()) | changes
        place.write_text(json.dumps(found))

    return spoil


def _text(file, text):
    def spoil(path):
        (path / file if file else path).write_text(text)

    return spoil


def _png_header(height, width):
    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def _rewrite(name, change):
    """Write an array of a zarr store again with other values."""

    def spoil(path):
        import zarr

        array = zarr.open_array(str(path / name), mode="r+")
        values = array[:]
        change(values)
        array[:] = values

    return spoil


def _replace(name, values, **kwargs):
    """Put another array in the place of one of a zarr store."""

    def spoil(path):
        import zarr

        group, _, leaf = name.rpartition("/")
        shutil.rmtree(path / name)
        foreign.add_v2(zarr.open_group(str(path / group), mode="r+"), leaf, values, **kwargs)

    return spoil


# --- zarr ------------------------------------------------------------------------------------

_ARRAYS = ("data/img", "data/state", "data/action", "meta/episode_ends")
_FIRST = {
    "data/img": "0.0.0.0",
    "data/state": "0.0",
    "data/action": "0.0",
    "meta/episode_ends": "0",
}
_TYPES = ["|O", "<U8", "|S4", "<M8[s]", "<c16", [["x", "<f4"]], "bogus", 5, None]
_CODECS = ["pickle", "json2", "msgpack2", "vlen-utf8", "vlen-bytes", "vlen-array", "categorize"]
_HEADERS = {
    "shape negative": {"shape": [-1, 3]},
    "shape fractional": {"shape": [1.5, 3]},
    "shape of words": {"shape": ["15", 3]},
    "shape of true": {"shape": [True, 3]},
    "shape none": {"shape": None},
    "shape empty": {"shape": []},
    "shape 2^60": {"shape": [2**60, 3]},
    "shape of 9 axes": {"shape": [15] + [1] * 8, "chunks": [15] + [1] * 8},
    "chunks of zero": {"chunks": [0, 3]},
    "chunks missing": {"chunks": None},
    "chunks of other rank": {"chunks": [5]},
    "format 9": {"zarr_format": 9},
    "format none": {"zarr_format": None},
    "filters a word": {"filters": "delta"},
    "compressor a word": {"compressor": "blosc"},
    "order bogus": {"order": "Z"},
}


def _zarr():
    for array in _ARRAYS:
        for file in (f"{array}/.zarray", f"{array}/{_FIRST[array]}"):
            for keep in (0, 0.3, 0.7, 0.95):
                yield Case("zarr", "truncated", f"{file} {keep}", _copied("zarr", _cut(file, keep)))
            yield Case("zarr", "missing file", file, _copied("zarr", _drop(file)))
        for kind in _TYPES:
            spoil = _edit_json(f"{array}/.zarray", dtype=kind)
            yield Case("zarr", "wrong type", f"{array} {kind}", _copied("zarr", spoil))
    for file in ("data/img/zarr.json", "data/action/zarr.json", "meta/episode_ends/zarr.json"):
        for keep in (0, 0.5, 0.9):
            case = _copied("zarr3", _cut(file, keep))
            yield Case("zarr 3", "truncated", f"{file} {keep}", case)
    for kind in ("string", "variable_length_utf8", "r16", {"name": "struct"}, "complex64"):
        spoil = _edit_json("data/img/zarr.json", data_type=kind)
        yield Case("zarr 3", "wrong type", f"{kind}", _copied("zarr3", spoil))
    for codec in ("pickle", "sharding_indexed", "vlen-utf8", "numcodecs.pickle"):
        spoil = _edit_json("data/img/zarr.json", codecs=[{"name": codec, "configuration": {}}])
        yield Case("zarr 3", "object codec", codec, _copied("zarr3", spoil))
    for name, change in _HEADERS.items():
        spoil = _edit_json("data/state/.zarray", **change)
        yield Case("zarr", "nonsense metadata", name, _copied("zarr", spoil))
    for name, text in {"list": "[]", "word": '"x"', "empty": "{}", "nest": "[" * 99_999}.items():
        case = _copied("zarr", _text("data/action/.zarray", text))
        yield Case("zarr", "nonsense metadata", name, case)
    for codec in _CODECS:
        spoil = _edit_json("data/action/.zarray", filters=[{"id": codec}])
        yield Case("zarr", "object codec", codec, _copied("zarr", spoil))
        spoil = _edit_json("data/img/.zarray", compressor={"id": codec})
        yield Case("zarr", "object codec", f"{codec} pictures", _copied("zarr", spoil))
    yield from _zarr_bombs()
    yield from _zarr_values()


def _zarr_bombs():
    for codec, make in CODEC_BOMBS.items():

        def spoil(path, codec=codec, make=make):
            _edit_json("data/img/.zarray", compressor={"id": codec})(path)
            for file in (path / "data" / "img").glob("[0-9]*"):
                file.write_bytes(make())

        yield Case("zarr", "bomb", f"{codec} chunk", _copied("zarr", spoil))
    for array in _ARRAYS[1:]:
        tail = [] if array == "meta/episode_ends" else [3]
        huge = {"shape": [2**40, *tail], "chunks": [2**33, *tail]}
        case = _copied("zarr", _edit_json(f"{array}/.zarray", **huge))
        yield Case("zarr", "bomb", f"{array} declares a chunk of 2^33", case)
    size = [20_000, 20_000, 3]
    changes = {"shape": [15, *size], "chunks": [1, *size], "dtype": "|u1"}
    case = _copied("zarr", _edit_json("data/img/.zarray", **changes))
    yield Case("zarr", "bomb", "pictures of 20000 pixels", case)
    wide = {"shape": [15, 9_000, 9_000, 3], "chunks": [1, 9_000, 9_000, 3], "dtype": "|u1"}
    case = _copied("zarr", _edit_json("data/img/.zarray", **wide))
    yield Case("zarr", "bomb", "pictures of 9000 pixels, chunks of a few bytes", case)

    def sparse(path):
        os.truncate(path / "data/img/0.0.0.0", 8 * GIB)

    yield Case("zarr", "bomb", "a sparse chunk file of 8 GiB", _copied("zarr", sparse))

    def long_metadata(path):
        os.truncate(path / "data/img/.zarray", 8 * GIB)

    yield Case("zarr", "bomb", "metadata of 8 GiB", _copied("zarr", long_metadata))

    def many(path):
        _edit_json("meta/episode_ends/.zarray", shape=[2**34], chunks=[2**20])(path)

    yield Case("zarr", "bomb", "2^34 episodes", _copied("zarr", many))


def _zarr_values():
    for name in ("state", "action"):
        for value in (np.nan, np.inf, -np.inf):

            def change(values, value=value):
                values[9, 1] = value

            case = _copied("zarr", _rewrite(f"data/{name}", change))
            yield Case("zarr", "not finite", f"{name} {value}", case)
    for value in (np.nan, np.inf, 300.0, -5.0):

        def change(values, value=value):
            values[2, 3, 3, 1] = value

        kind = "value out of range" if np.isfinite(value) else "not finite"
        yield Case("zarr", kind, f"pixel {value}", _copied("zarr", _rewrite("data/img", change)))
    for name in ("img", "state", "action"):

        def shorten(path, name=name):
            import zarr

            array = zarr.open_array(str(path / "data" / name), mode="r+")
            array.resize((11, *array.shape[1:]))

        yield Case("zarr", "lengths differ", f"{name} is short", _copied("zarr", shorten))
    for name, file in {"chunk": "data/img/0.0.0.0", "metadata": "data/img/.zarray"}.items():

        def link(path, file=file):
            secret = path.parent / "secret"
            (path / file).rename(secret)
            (path / file).symlink_to(secret)

        yield Case("zarr", "leads out", f"{name} is a link", _copied("zarr", link))


def _zarr_ends():
    bad = {
        "negative": [-5, 8, 15],
        "zero": [0, 8, 15],
        "not growing": [8, 5, 15],
        "twice": [5, 5, 15],
        "beyond the data": [5, 8, 99],
        "far beyond": [5, 8, 2**62],
        "empty": [],
    }
    for name, ends in bad.items():
        spoil = _replace("meta/episode_ends", np.array(ends, np.int64), chunks=(3,))
        yield Case("zarr", "episode ends", name, _copied("zarr", spoil))
    others = {
        "fractions": np.array([5.0, 8.0, 15.0]),
        "nan": np.array([5.0, np.nan, 15.0]),
        "truth values": np.array([True, False, True]),
        "a table": np.array([[5], [8], [15]]),
        "unsigned 2^63": np.array([5, 8, 2**63], np.uint64),
    }
    for name, ends in others.items():
        spoil = _replace("meta/episode_ends", ends)
        yield Case("zarr", "episode ends", name, _copied("zarr", spoil))


def _zarr_record():
    good = {"numbers": {"action": ["action"], "observation.state": ["state"]}, "fps": 20.0}
    bad = {
        "fps zero": {"fps": 0},
        "fps negative": {"fps": -1.0},
        "fps nan": {"fps": float("nan")},
        "fps infinite": {"fps": float("inf")},
        "fps a word": {"fps": "twenty"},
        "fps a list": {"fps": [20]},
        "orientation sideways": {"orientation": "sideways"},
        "orientation a list": {"orientation": ["upright"]},
        "colour cmyk": {"colour": "cmyk"},
        "axes xyz": {"axes": "xyz"},
        "value range unknown": {"value_range": "ten"},
        "columns a list": {"numbers": ["action"]},
        "columns a word": {"numbers": "action"},
        "a column of numbers": {"numbers": {"action": [1]}},
        "a column of nothing": {"numbers": {"action": []}},
        "a column that is not there": {"numbers": {"action": ["torque"]}},
        "a column elsewhere": {"numbers": {"action": ["../../../etc/passwd"]}},
        "one task for two": {"tasks": ["a"]},
    }
    for name, change in bad.items():
        text = json.dumps({"embodied_reward": good | {"tasks": ["a", "b"]} | change})
        case = _copied("noted", _text(".zattrs", text))
        yield Case("zarr", "nonsense record", name, case)
    for keep in (0.3, 0.8):
        case = _copied("noted", _cut(".zattrs", keep))
        yield Case("zarr", "truncated", f".zattrs {keep}", case)


# --- zip -------------------------------------------------------------------------------------


def _zips():
    for keep in (0, 0.01, 0.2, 0.5, 0.8, 0.95, 0.999):
        yield Case("zarr zip", "truncated", f"{keep}", _copied("zip", _cut("", keep)))
    yield Case("zarr zip", "no such format", "text", _copied("zip", _text("", "PK but no archive")))
    names = ("../x", "/etc/x", "a/../../x", "C:/x", "..\\x", "data/../../../x", "a/..")
    for name in names:

        def add(path, name=name):
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(zipfile.ZipInfo(name), b"x")

        yield Case("zarr zip", "leads out", name, _copied("zip", add))

    def twice(path):
        data = path.read_bytes()
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("data/img/.zarrax", b"{}")
        data = path.read_bytes().replace(b"data/img/.zarrax", b"data/img/0.0.0.0")
        path.write_bytes(data)

    yield Case("zarr zip", "nonsense metadata", "an entry twice", _copied("zip", twice))

    def encrypted(path):
        data = bytearray(path.read_bytes())
        at = data.find(b"PK\x01\x02")
        data[at + 8] |= 1
        path.write_bytes(bytes(data))

    yield Case("zarr zip", "nonsense metadata", "encrypted", _copied("zip", encrypted))

    def flipped(path):
        data = bytearray(path.read_bytes())
        at = data.find(b"data/img/0.0.0.0") + 40
        data[at : at + 30] = bytes(255 - b for b in data[at : at + 30])
        path.write_bytes(bytes(data))

    yield Case("zarr zip", "damaged bytes", "a chunk", _copied("zip", flipped))
    for file in ("data/img/0.0.0.0", "data/img/.zarray", "meta/episode_ends/.zarray"):

        def bomb(root, folder, file=file):
            store = shutil.copytree(root / "zarr", folder / "s")
            path = _zip(store, folder / "zip", zipfile.ZIP_DEFLATED)
            with zipfile.ZipFile(path) as archive:
                kept = {n: archive.read(n) for n in archive.namelist() if n != file}
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in kept.items():
                    archive.writestr(name, data)
                archive.writestr(file, bytes(80 * 2**20))
            return path

        yield Case("zarr zip", "bomb", f"{file} of 80 MiB zeros", bomb)
    for drop in ("meta/episode_ends", "data/action/0.0", "meta", "data"):

        def without(root, folder, drop=drop):
            store = shutil.copytree(root / "zarr", folder / "s")
            _drop(drop)(store)
            return _zip(store, folder / "zip")

        yield Case("zarr zip", "missing file", drop, without)


# --- HDF5 ------------------------------------------------------------------------------------

_IMAGE = "obs/agentview_image"


def _h5(change, name="hdf5", inside=""):
    """A case that changes an HDF5 file through h5py."""

    def spoil(path):
        with h5py.File(path / inside if inside else path, "r+") as file:
            change(file)

    return _copied(name, spoil, inside)


def _put(where, name, make):
    """Replace `name` under the group `where` by what `make(group, name)` writes."""

    def change(file):
        group = file[where]
        if name in group:
            del group[name]
        make(group, name)

    return change


def _unread(name):
    """Training never reads simulator states; converting does."""
    return "zarr" if name in ("states", "rewards") else None


def _hdf5():
    for keep in (0, 0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99):
        yield Case("robomimic", "truncated", f"{keep}", _copied("hdf5", _cut("", keep)))

    def named(root, folder):
        (folder / "x.hdf5").write_text("this is no HDF5")
        return folder / "x.hdf5"

    yield Case("robomimic", "no such format", "text", named)
    for at in (0, 8, 40, 100, 3000):

        def damage(path, at=at):
            data = bytearray(path.read_bytes())
            data[at : at + 60] = bytes(255 - b for b in data[at : at + 60])
            path.write_bytes(bytes(data))

        yield Case("robomimic", "damaged bytes", f"at {at}", _copied("hdf5", damage))
    for name in ("actions", "rewards", "states", _IMAGE, "obs/object", "obs/robot0_eef_pos"):
        for how, new in {"short": -1, "long": 2, "empty": None}.items():

            def resize(file, name=name, new=new):
                rows = file["data/demo_1"][name][:]
                rows = rows[:new] if new == -1 else np.repeat(rows, 2, 0) if new else rows[:0]
                del file["data/demo_1"][name]
                file["data/demo_1"][name] = rows

            case = _h5(resize)
            yield Case("robomimic", "lengths differ", f"{name} is {how}", case, _unread(name))
    for name, value in {"too many": 99, "negative": -3, "words": "three", "a list": [1, 2]}.items():

        def attr(file, value=value):
            file["data/demo_1"].attrs["num_samples"] = value

        yield Case("robomimic", "nonsense metadata", f"num_samples {name}", _h5(attr))
    for key in ("env_args", "problem_info", "embodied_reward"):
        for name, text in {"cut": '{"env', "nest": "[" * 50_000, "number": 7}.items():

            def spoil(file, key=key, text=text):
                file["data"].attrs[key] = text

            yield Case("robomimic", "nonsense metadata", f"{key} {name}", _h5(spoil))
    for name in ("data", "data/demo_0/actions", "data/demo_1/actions"):
        yield Case("robomimic", "missing", name, _h5(lambda f, n=name: f.__delitem__(n)))
    for name in (_IMAGE, "obs", "obs/object", "obs/robot0_eef_pos"):
        case = _h5(lambda f, n=name: f["data/demo_1"].__delitem__(n))
        yield Case("robomimic", "missing", f"{name} in one episode", case)

    def no_demos(file):
        for name in list(file["data"]):
            del file["data"][name]

    yield Case("robomimic", "missing", "every episode", _h5(no_demos))

    def other_size(file):
        demo = file["data/demo_1"]
        del demo[_IMAGE]
        demo[_IMAGE] = np.zeros((3, 6, 6, 3), np.uint8)

    yield Case("robomimic", "lengths differ", "pictures of another size", _h5(other_size))
    for name in ("actions", "obs/object", "obs/robot0_eef_pos"):
        for value in (np.nan, np.inf, 1e300):  # the last is too large for float32

            def spoil(file, name=name, value=value):
                file["data/demo_2"][name][1, 1] = value

            yield Case("robomimic", "not finite", f"{name} {value}", _h5(spoil))


def _hdf5_links():
    outside = {
        "external": lambda g, n: g.__setitem__(n, h5py.ExternalLink("/etc/passwd", "/x")),
        "external, itself": lambda g, n: g.__setitem__(
            n, h5py.ExternalLink(g.file.filename, "/data/demo_0/actions")
        ),
        "soft": lambda g, n: g.__setitem__(n, h5py.SoftLink("/data/demo_0/actions")),
        "soft, dangling": lambda g, n: g.__setitem__(n, h5py.SoftLink("/nowhere")),
        "soft, in a circle": lambda g, n: g.__setitem__(n, h5py.SoftLink(f"{g.name}/{n}")),
    }
    places = {
        "data": ("/", "data"),
        "an episode": ("data", "demo_1"),
        "actions": ("data/demo_0", "actions"),
        "obs": ("data/demo_0", "obs"),
        "pictures": ("data/demo_0", _IMAGE),
        "a later picture": ("data/demo_2", _IMAGE),
    }
    for link, make in outside.items():
        for place, (where, name) in places.items():
            case = _h5(_put(where, name, make))
            yield Case("robomimic", "leads out", f"{place}: {link} link", case)

    def external_storage(group, name):
        group.create_dataset(name, (3, 4), "f8", external=[("/etc/passwd", 0, 96)])

    def virtual(group, name):
        layout = h5py.VirtualLayout((3, 4), "f8")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 4))
        group.create_virtual_dataset(name, layout)

    for name, make in {"external storage": external_storage, "virtual": virtual}.items():
        for place in ("actions", "states", "obs/object"):
            case = _h5(_put("data/demo_1", place, make))
            yield Case("robomimic", "leads out", f"{place}: {name}", case, _unread(place))


def _hdf5_types():
    vlen = h5py.vlen_dtype(np.float64)
    text, reference = h5py.string_dtype(), h5py.ref_dtype
    makers = {
        "text": lambda g, n: g.create_dataset(n, (3,), text),
        "lists": lambda g, n: g.create_dataset(n, (3,), vlen),
        "references": lambda g, n: g.create_dataset(n, (3,), reference),
        "records": lambda g, n: g.create_dataset(n, data=np.zeros(3, [("a", "f4"), ("b", "i4")])),
        "complex": lambda g, n: g.create_dataset(n, data=np.zeros((3, 4), "c16")),
        "bytes": lambda g, n: g.create_dataset(n, data=np.array([b"a", b"b", b"c"])),
        "opaque": lambda g, n: g.create_dataset(n, data=np.zeros(3, "V8")),
        "a scalar": lambda g, n: g.create_dataset(n, data=3.0),
        "nothing": lambda g, n: g.create_dataset(n, data=h5py.Empty("f8")),
        "a group": lambda g, n: g.create_group(n),
    }
    for kind, make in makers.items():
        for place in ("actions", _IMAGE, "obs/object"):
            case = _h5(_put("data/demo_1", place, make))
            yield Case("robomimic", "wrong type", f"{place} {kind}", case)
    bombs = {
        "declared, not stored": lambda g, n: g.create_dataset(n, (2**38, 4), "f8"),
        "a huge chunk": lambda g, n: g.create_dataset(n, (2**30, 4), "f8", chunks=(2**26, 4)),
        "chunks never written": lambda g, n: g.create_dataset(n, (2**34, 4), "f8", chunks=(9, 4)),
        "many axes": lambda g, n: g.create_dataset(n, (3,) + (1,) * 12, "f8"),
    }
    for kind, make in bombs.items():
        for place in ("actions", "states", "obs/robot0_eef_pos"):
            case = _h5(_put("data/demo_1", place, make))
            yield Case("robomimic", "bomb", f"{place}: {kind}", case, _unread(place))
    for megabytes in (72, 96):

        def deflate(group, name, megabytes=megabytes):
            rows = megabytes * 2**20 // 8
            array = group.create_dataset(
                name, (rows,), "f8", chunks=(rows,), compression="gzip", compression_opts=9
            )
            array.id.write_direct_chunk((0,), zlib.compress(bytes(megabytes * 2**20), 1))

        for place in ("actions", "states"):
            case = _h5(_put("data/demo_1", place, deflate))
            name = f"{place}: {megabytes} MiB of zeros"
            yield Case("robomimic", "bomb", name, case, _unread(place))

    def lying_chunk(group, name):
        array = group.create_dataset(
            name, (3, 8, 10, 3), "u1", chunks=(3, 8, 10, 3), compression="gzip"
        )
        array.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(96 * 2**20), 1))

    case = _h5(_put("data/demo_1", _IMAGE, lying_chunk))
    yield Case("robomimic", "bomb", "a chunk that inflates to 96 MiB", case)


# --- ManiSkill -------------------------------------------------------------------------------


def _maniskill():
    for keep in (0, 0.05, 0.5, 0.9, 0.99):
        case = _copied("ms", _cut("t.h5", keep), "t.h5")
        yield Case("ManiSkill", "truncated", f"t.h5 {keep}", case)
        case = _copied("ms", _cut("t.json", keep), "t.h5")
        yield Case("ManiSkill", "truncated", f"t.json {keep}", case)
    texts = {"list": "[]", "no episodes": "{}", "episodes a word": '{"episodes": "x"}'}
    texts |= {"episodes of words": '{"episodes": ["x", "y"]}', "nest": "[" * 50_000}
    for name, text in texts.items():
        case = _copied("ms", _text("t.json", text), "t.h5")
        yield Case("ManiSkill", "nonsense metadata", name, case)
    lines = [{"episode_id": i, "elapsed_steps": n} for i, n in enumerate((5, 99, 7))]
    case = _copied("ms", _edit_json("t.json", episodes=lines), "t.h5")
    yield Case("ManiSkill", "lengths differ", "steps in the JSON", case)
    case = _copied("ms", _edit_json("t.json", episodes=lines[:1]), "t.h5")
    yield Case("ManiSkill", "missing", "an episode in the JSON", case)
    changes = {
        "a camera": lambda f: f["traj_1/obs/sensor_data"].__delitem__("agentview"),
        "actions": lambda f: f["traj_1"].__delitem__("actions"),
        "qpos": lambda f: f["traj_2/obs/agent"].__delitem__("qpos"),
        "every episode": lambda f: [f.__delitem__(n) for n in list(f)],
    }
    for name, change in changes.items():
        yield Case("ManiSkill", "missing", name, _h5(change, "ms", "t.h5"))
    for value in (np.nan, np.inf):

        def spoil(file, value=value):
            file["traj_1/obs/agent/qvel"][1, 1] = value

        yield Case("ManiSkill", "not finite", f"qvel {value}", _h5(spoil, "ms", "t.h5"))
    link = _put("traj_1", "actions", lambda g, n: g.__setitem__(n, h5py.ExternalLink("/x", "/y")))
    yield Case("ManiSkill", "leads out", "actions: external link", _h5(link, "ms", "t.h5"))
    link = _put("traj_0", "obs", lambda g, n: g.__setitem__(n, h5py.SoftLink("/traj_0")))
    yield Case("ManiSkill", "leads out", "obs: soft link", _h5(link, "ms", "t.h5"))


# --- videos ----------------------------------------------------------------------------------


def _mp4():
    for file in ("top/0.mp4", "wrist/1.mp4"):
        for keep in (0, 0.1, 0.5, 0.9):
            case = _copied("mp4", _cut(file, keep))
            yield Case("videos", "truncated", f"{file} {keep}", case)
        yield Case("videos", "missing file", file, _copied("mp4", _drop(file)))
        for name, text in {
            "text": "no video",
            "a playlist": "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
            "a list of files": "ffconcat version 1.0\nfile /etc/passwd\n",
        }.items():
            case = _copied("mp4", _text(file, text))
            yield Case("videos", "no such format", f"{file} {name}", case)

    def no_codec(path):
        file = path / "top/0.mp4"
        file.write_bytes(file.read_bytes().replace(b"avc1", b"zzz\0"))

    yield Case("videos", "damaged bytes", "the codec's name", _copied("mp4", no_codec))

    def shorter(path):
        foreign.write_mp4(path / "top/1.mp4", foreign.bars(4, (60, 90, 200)))

    yield Case("videos", "lengths differ", "one view is short", _copied("mp4", shorter))

    def other_size(path):
        foreign.write_mp4(path / "top/1.mp4", foreign.bars(9, (60, 90, 200), (48, 64)))

    yield Case("videos", "lengths differ", "one video is larger", _copied("mp4", other_size))

    def other_rate(path):
        (path / "manifest.json").unlink()
        foreign.write_mp4(path / "a.mp4", foreign.bars(4, (60, 90, 200)), fps=10)
        foreign.write_mp4(path / "b.mp4", foreign.bars(4, (60, 90, 200)), fps=25)

    yield Case("videos", "nonsense metadata", "two frame rates", _copied("mp4", other_rate))


def _manifests():
    good = {"views": {"top": "top/0.mp4", "wrist": "wrist/0.mp4"}, "success": True}
    outside = [
        "/etc/passwd",
        "../x.mp4",
        "top/../../x.mp4",
        "",
        ".",
        7,
        None,
        ["top/0.mp4"],
        "a\0b",
    ]
    for name in outside:
        text = json.dumps({"episodes": [{"views": {"top": name}}]})
        yield Case("videos", "leads out", repr(name), _copied("mp4", _text("manifest.json", text)))

    def link(path):
        secret = path.parent / "secret.mp4"
        (path / "top/0.mp4").rename(secret)
        (path / "top/0.mp4").symlink_to(secret)

    yield Case("videos", "leads out", "a link", _copied("mp4", link))
    bad = {
        "cut": '{"episodes": [',
        "list": "[]",
        "empty": "{}",
        "nest": "[" * 50_000,
        "no episodes": '{"episodes": []}',
        "episodes a word": '{"episodes": "all"}',
        "an episode is a word": '{"episodes": ["top/0.mp4"]}',
        "no views": '{"episodes": [{"task": "x"}]}',
        "views empty": '{"episodes": [{"views": {}}]}',
        "views a list": '{"episodes": [{"views": ["top/0.mp4"]}]}',
        "unknown entry": json.dumps({"episodes": [good], "framerate": 10}),
        "unknown entry in an episode": json.dumps({"episodes": [good | {"sucess": True}]}),
        "success a word": json.dumps({"episodes": [good | {"success": "yes"}]}),
        "fps zero": json.dumps({"episodes": [good], "fps": 0}),
        "fps negative": json.dumps({"episodes": [good], "fps": -10}),
        "fps a word": json.dumps({"episodes": [good], "fps": "ten"}),
        "fps nan": '{"fps": NaN, "episodes": [{"views": {"top": "top/0.mp4"}}]}',
        "other views in an episode": json.dumps(
            {"episodes": [good, {"views": {"top": "top/1.mp4"}}]}
        ),
    }
    for name, text in bad.items():
        case = _copied("mp4", _text("manifest.json", text))
        yield Case("videos", "nonsense metadata", name, case)


# --- LeRobot ---------------------------------------------------------------------------------

_INFO, _DATA = "meta/info.json", "data/chunk-000/file-000.parquet"
_EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def _edit_rows(key, edit, file=_DATA):
    def spoil(path):
        table = pq.read_table(path / file)
        at = table.schema.get_field_index(key)
        column = pa.array(edit(table.column(key).to_pylist()), type=table.schema.field(key).type)
        pq.write_table(table.set_column(at, table.schema.field(key), column), path / file)

    return spoil


def _edit_feature(key, change):
    def spoil(path):
        info = json.loads((path / _INFO).read_text())
        if change is None:
            del info["features"][key]["shape"]
        else:
            info["features"][key] = change
        (path / _INFO).write_text(json.dumps(info))

    return spoil


def _v3():
    for file in (_INFO, _DATA, _EPISODES):
        for keep in (0, 0.3, 0.7, 0.95):
            yield Case("LeRobot v3", "truncated", f"{file} {keep}", _copied("v3", _cut(file, keep)))
    for file in (_DATA, _EPISODES):
        yield Case("LeRobot v3", "missing file", file, _copied("v3", _drop(file)))
    changes = {
        "fps zero": {"fps": 0},
        "fps negative": {"fps": -5},
        "fps a word": {"fps": "ten"},
        "fps none": {"fps": None},
        "features a list": {"features": []},
        "features a word": {"features": "all"},
        "a feature is a word": {"features": {"action": "float32"}},
        "version 1.0": {"codebase_version": "v1.0"},
        "version none": {"codebase_version": None},
        "data path elsewhere": {"data_path": "../../{chunk_index}/{file_index}.parquet"},
        "data path of other words": {"data_path": "data/{nothing}.parquet"},
        "data path a number": {"data_path": 7},
        "more episodes than listed": {"total_episodes": 9},
    }
    for name, change in changes.items():
        case = _copied("v3", _edit_json(_INFO, **change))
        yield Case("LeRobot v3", "nonsense metadata", name, case)
    for name, text in {"list": "[]", "nest": "[" * 50_000, "word": '"x"'}.items():
        case = _copied("v3", _text(_INFO, text))
        yield Case("LeRobot v3", "nonsense metadata", name, case)
    picture = "observation.images.top"
    shapes = {"one side": [8], "words": ["8", "8", 3], "huge": [2**20, 2**20, 3], "zero": [0, 8, 3]}
    for name, shape in shapes.items():
        spoil = _edit_feature(picture, {"dtype": "image", "shape": shape, "names": None})
        yield Case("LeRobot v3", "nonsense metadata", f"pictures: {name}", _copied("v3", spoil))
    yield Case(
        "LeRobot v3",
        "nonsense metadata",
        "pictures without a shape",
        _copied("v3", _edit_feature(picture, None)),
    )
    yield from _v3_rows(picture)


def _v3_rows(picture):
    for key in ("action", "observation.state", "progress"):
        for value in (np.nan, np.inf):

            def spoil(rows, value=value):
                rows[5] = [value, *rows[5][1:]] if isinstance(rows[5], list) else value
                return rows

            case = _copied("v3", _edit_rows(key, spoil))
            yield Case("LeRobot v3", "not finite", f"{key} {value}", case)
    for length in (0, -4, 99, 2**40):

        def spoil(rows, length=length):
            return [length, *rows[1:]]

        case = _copied("v3", _edit_rows("length", spoil, _EPISODES))
        yield Case("LeRobot v3", "lengths differ", f"an episode of {length} rows", case)
    pictures = {
        "none": None,
        "cut": {"bytes": b"\x89PNG\r\n", "path": None},
        "no picture": {"bytes": b"hello", "path": None},
        "a file elsewhere": {"bytes": None, "path": "/etc/passwd"},
        "a file above": {"bytes": None, "path": "../../secret.png"},
        "30000 pixels a side": {"bytes": _png_header(30_000, 30_000) + bytes(9), "path": None},
        "9000 pixels a side": {"bytes": _png_header(9_000, 9_000) + bytes(9), "path": None},
    }
    for name, item in pictures.items():

        def spoil(rows, item=item):
            return [*rows[:3], item, *rows[4:]]

        kind = "leads out" if "file" in name else "bomb" if "pixels" in name else "damaged bytes"
        yield Case(
            "LeRobot v3", kind, f"picture: {name}", _copied("v3", _edit_rows(picture, spoil))
        )


def _v21():
    for name in ("info.json", "episodes.jsonl", "episodes_stats.jsonl", "tasks.jsonl"):
        for keep in (0, 0.5):
            case = _copied("v21", _cut(f"meta/{name}", keep))
            yield Case("LeRobot v2.1", "truncated", f"{name} {keep}", case, convert="lerobot")
        if name != "info.json":
            case = _copied("v21", _drop(f"meta/{name}"))
            yield Case("LeRobot v2.1", "missing file", name, case, convert="lerobot")
    for keep in (0, 0.5):
        case = _copied("v21", _cut("data/chunk-000/episode_000001.parquet", keep))
        yield Case("LeRobot v2.1", "truncated", f"parquet {keep}", case, convert="lerobot")
    case = _copied("v21", _drop("data/chunk-000/episode_000001.parquet"))
    yield Case("LeRobot v2.1", "missing file", "a parquet", case, convert="lerobot")
