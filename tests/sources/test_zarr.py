"""Zarr arrays and OME-Zarr images give the pixels that the zarr package gives, each stored chunk decoded once."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import sys
import threading
from contextlib import closing
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exactile.errors import ChannelError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.sources.open import open_source
from exactile.sources.protocol import ReadPlan
from exactile.sources.zarr.source import ZarrSource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.nets import onnx_bytes

HEIGHT, WIDTH = 83, 117
SIZES = {"T": 3, "C": 5, "Z": 4, "Y": HEIGHT, "X": WIDTH}
CHUNKS = {"T": 1, "C": 2, "Z": 3, "Y": 32, "X": 48}
BOXES = [
    Box(Span(0, HEIGHT), Span(0, WIDTH)),
    Box(Span(31, 65), Span(30, 98)),
    Box(Span(HEIGHT - 1, HEIGHT), Span(0, WIDTH)),
    Box(Span(0, HEIGHT), Span(WIDTH - 1, WIDTH)),
    Box(Span(40, 41), Span(50, 51)),
    Box(Span(5, 5), Span(0, WIDTH)),
]


def samples(axes: str, dtype: str = "u2") -> np.ndarray:
    return np.random.default_rng(len(axes)).integers(0, 255, [SIZES[axis] for axis in axes]).astype(dtype)


def plane(array: np.ndarray, axes: str, **positions: int) -> np.ndarray:
    """The oracle: (Y, X, channels) of one plane of an array in memory."""
    for letter, position in positions.items():
        array, axes = array.take(position, axes.index(letter)), axes.replace(letter, "")
    return np.atleast_3d(array.transpose([axes.index(letter) for letter in "YXC" if letter in axes]))


def write(store: Path | str, axes: str, dtype: str = "u2", chunks: dict[str, int] = CHUNKS, **options) -> np.ndarray:
    """A Zarr array of ``samples``; what zarr itself reads back is returned."""
    array = samples(axes, dtype)
    stored = zarr.create_array(
        str(store), shape=array.shape, dtype=dtype, chunks=[chunks[axis] for axis in axes], **options
    )
    stored[...] = array
    expected = zarr.open_array(str(store), mode="r")[...]
    np.testing.assert_array_equal(expected, array)
    return expected


def write_ome(
    folder: Path, axes: str, version: str, steps: tuple[int, ...] = (1, 2, 4), unit: str | None = "micrometer"
):
    """An OME-Zarr image of levels 0, 1, ... of 0.5 x 0.25 micrometres (height x width) at full resolution."""
    full = samples(axes)
    datasets = []
    for level, step in enumerate(steps):
        reduced = full[tuple(slice(None, None, step) if axis in "YX" else slice(None) for axis in axes)]
        array = zarr.create_array(
            str(folder / str(level)),
            shape=reduced.shape,
            dtype=reduced.dtype,
            chunks=[CHUNKS[axis] for axis in axes],
            zarr_format=2 if version == "0.4" else 3,
        )
        array[...] = reduced
        scale = [{"Y": 0.5 * step, "X": 0.25 * step}.get(axis, 1.0) for axis in axes]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    kinds = {"T": "time", "C": "channel"}
    named = [
        {"name": axis.lower(), "type": kinds.get(axis, "space"), **({"unit": unit} if unit and axis in "YX" else {})}
        for axis in axes
    ]
    document = {"multiscales": [{"axes": named, "datasets": datasets, "name": "image"}]}
    group = zarr.open_group(str(folder), mode="a", zarr_format=2 if version == "0.4" else 3)
    if version == "0.4":
        document["multiscales"][0]["version"] = version
        group.attrs.update(document)
    else:
        group.attrs["ome"] = {"version": version, **document}
    return full


def read(source, box: Box | None = None) -> np.ndarray:
    box = box or Box(Span(0, source.height), Span(0, source.width))
    out = np.full((*box.shape, source.channels), 77, source.dtype)
    source.read(box, out)
    return out


def assert_reads(image: object, expected: np.ndarray, **options) -> None:
    with closing(open_source(image, **options)) as source:
        assert isinstance(source, ZarrSource)
        assert (source.height, source.width, source.channels) == expected.shape
        assert source.dtype == expected.dtype.newbyteorder("=")
        assert source.dtype.isnative
        for box in BOXES if expected.shape[:2] == (HEIGHT, WIDTH) else [None]:
            np.testing.assert_array_equal(read(source, box), expected[box.slices()] if box else expected)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<f4", ">f4"])
@pytest.mark.parametrize("axes", ["YX", "YXC", "CYX"])
def test_plain_arrays_of_both_versions_and_every_sample_type(tmp_path, axes, dtype, zarr_format):
    if zarr_format == 3 and dtype[0] == ">":
        serializer = zarr.codecs.BytesCodec(endian="big")
        expected = write(tmp_path / "a", axes, dtype[1:], zarr_format=3, serializer=serializer)
    else:
        expected = write(tmp_path / "a", axes, dtype, zarr_format=zarr_format)
    options = {"axes": "CYX"} if axes == "CYX" else {}
    assert_reads(tmp_path / "a", plane(expected, axes), **options)
    if "C" in axes:
        for channels in ([0], [4, 0], [1, 1, 3], [3, 2]):
            assert_reads(str(tmp_path / "a"), plane(expected, axes)[..., channels], channels=channels, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": None},
        {"compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")},
        {"compressors": zarr.codecs.GzipCodec()},
        {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
        {"filters": zarr.codecs.TransposeCodec(order=(1, 0))},
        {"shards": (64, 96)},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"zarr_format": 2, "order": "F"},
    ],
)
def test_codecs_shards_and_orders(tmp_path, options):
    assert_reads(tmp_path / "a", write(tmp_path / "a", "YX", **options)[..., None])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["YX", "CYX", "ZYX", "TYX", "CZYX", "TCZYX"])
def test_planes_and_levels_of_ome_zarr(tmp_path, axes, version):
    full = write_ome(tmp_path, axes, version)
    for z, t in [(0, 0), (3, 1), (2, 2)]:
        choice = {key: value for key, value in {"z": z, "t": t}.items() if key.upper() in axes}
        expected = plane(full, axes, **{key.upper(): value for key, value in choice.items()})
        for level, step in enumerate((1, 2, 4)):
            assert_reads(tmp_path, expected[::step, ::step], level=level, **choice)


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("TCZ")])
def test_axes_in_any_order_go_by_their_names(tmp_path, order):
    full = write_ome(tmp_path, order + "YX", "0.5", steps=(1,))
    assert_reads(tmp_path, plane(full, order + "YX", T=2, Z=1), z=1, t=2)


def test_dimension_names_of_a_plain_array_are_its_axes(tmp_path):
    expected = write(tmp_path / "a", "CYX", dimension_names=["channel", "y", "x"])
    assert_reads(tmp_path / "a", plane(expected, "CYX"))
    write(tmp_path / "b", "CYX", dimension_names=["band", "lat", "lon"])
    with pytest.raises(SourceError, match=r"\('band', 'lat', 'lon'\); say what they are with axes"):
        open_source(tmp_path / "b")
    assert_reads(tmp_path / "b", plane(expected, "CYX"), axes="CYX")
    expected = write(tmp_path / "c", "TYX", dimension_names=["t", "y", "x"])
    assert_reads(tmp_path / "c", plane(expected, "TYX", T=1), t=1)


def test_microns_per_pixel_choose_the_level(tmp_path):
    write_ome(tmp_path / "a", "CYX", "0.4")
    with closing(open_source(tmp_path / "a", level=1)) as source:
        assert source.pixel_size_um == (1.0, 0.5)
    with pytest.raises(OptionError, match=r"within 5%: level 0 has 0\.5 x 0\.25 \(height x width\), level 1"):
        open_source(tmp_path / "a", mpp=0.5)
    write_ome(tmp_path / "b", "CYX", "0.5", unit=None)
    with closing(open_source(tmp_path / "b")) as source:
        assert source.pixel_size_um is None
    with pytest.raises(OptionError, match="does not say how large its pixels are"):
        open_source(tmp_path / "b", mpp=0.5)
    write_ome(tmp_path / "c", "CYX", "0.5", unit="nanometer")
    with closing(open_source(tmp_path / "c")) as source:
        assert source.pixel_size_um == pytest.approx((0.0005, 0.00025))


def test_square_pixels_are_found_by_their_size(tmp_path):
    write_ome(tmp_path, "YX", "0.5")
    group = zarr.open_group(str(tmp_path), mode="a")
    ome = group.attrs["ome"]
    ome["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [1.0, 2.0]}]
    group.attrs["ome"] = ome
    with closing(open_source(tmp_path, mpp=0.98)) as source:
        assert source.pixel_size_um == (1.0, 1.0)
        assert (source.height, source.width) == (42, 59)


def test_series_of_a_bioformats2raw_hierarchy(tmp_path):
    first = write_ome(tmp_path / "0", "YX", "0.4")
    second = write_ome(tmp_path / "1", "CYX", "0.4")
    zarr.open_group(str(tmp_path), mode="a", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    assert_reads(tmp_path, first[..., None])
    assert_reads(tmp_path, plane(second, "CYX"), series=1)
    with pytest.raises(OptionError, match="series 2 was requested, but the file has 2"):
        open_source(tmp_path, series=2)


def test_what_is_no_single_image_is_refused_with_what_to_do(tmp_path):
    write_ome(tmp_path / "a", "TZYX", "0.5")
    with pytest.raises(SourceError, match=r"holds TZYX.*choose t \(--t\) from 0 to 2 and z \(--z\) from 0 to 3"):
        open_source(tmp_path / "a")
    with pytest.raises(OptionError, match="z 4 was requested, but the image has 4"):
        open_source(tmp_path / "a", t=0, z=4)
    with pytest.raises(OptionError, match="level 3 was requested, but the file has 3"):
        open_source(tmp_path / "a", level=3)
    with pytest.raises(OptionError, match="metadata says TZYX"):
        open_source(tmp_path / "a", axes="CYX")
    write(tmp_path / "group" / "inner", "YX")
    zarr.open_group(str(tmp_path / "group"), mode="a")
    with pytest.raises(SourceError, match=r"a group without images.*it holds inner"):
        open_source(tmp_path / "group")
    zarr.open_group(str(tmp_path / "plate"), mode="w").attrs["ome"] = {"plate": {}}
    with pytest.raises(SourceError, match="is a plate; give the path of one image"):
        open_source(tmp_path / "plate")
    write(tmp_path / "four", "CZYX")
    with pytest.raises(SourceError, match=r"four: an array of shape \(5, 4, 83, 117\)"):
        open_source(tmp_path / "four")
    write(tmp_path / "three", "CYX")
    with pytest.raises(ChannelError, match="channel 117 was requested, but the image has 117"):
        open_source(tmp_path / "three", channels=[117])
    for options in ({"level": 1}, {"series": 1}, {"z": 1}, {"t": 1}, {"axes": "ZYX"}, {"workers": 0}):
        with pytest.raises(OptionError):
            open_source(tmp_path / "three", **options)


@pytest.mark.parametrize("dtype", ["i8", "u8", "c8"])
def test_other_sample_types_are_refused_by_name(tmp_path, dtype):
    write(tmp_path / "a", "YX", np.dtype(dtype).name)
    with pytest.raises(SourceError, match=rf"samples are {np.dtype(dtype).name}"):
        open_source(tmp_path / "a")


def test_damaged_metadata_is_reported_by_name(tmp_path):
    write_ome(tmp_path / "a", "YX", "0.5")
    document = json.loads((tmp_path / "a" / "zarr.json").read_text())

    def change(**multiscale):
        entry = {**document["attributes"]["ome"]["multiscales"][0], **multiscale}
        changed = {**document, "attributes": {"ome": {"multiscales": [entry]}}}
        (tmp_path / "a" / "zarr.json").write_text(json.dumps(changed))

    for damage, message in [
        ({"datasets": []}, "holds no image"),
        ({"datasets": [{}]}, "damaged OME metadata: KeyError: 'path'"),
        ({"datasets": [{"path": "9"}]}, "'9', which should be in it, cannot be opened"),
        ({"datasets": 3}, "damaged OME metadata"),
        ({"axes": ["y", "y"]}, "its axes are YY"),
        ({"axes": ["z", "y", "x"]}, "its axes are called ZYX"),
    ]:
        change(**damage)
        with pytest.raises(SourceError, match=message):
            open_source(tmp_path / "a")
    (tmp_path / "a" / "zarr.json").write_text("{")
    with pytest.raises(SourceError, match="cannot be opened as Zarr"):
        open_source(tmp_path / "a")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", [99999999999, 83, 117], "99999999999 channels, but at most 65536"),
        ("shape", [0, 83, 117], "has no pixels"),
        ("chunks", [0, 32, 48], r"damaged metadata: chunks of \(0, 32, 48\)"),
        ("chunks", [2, 32, 0], r"damaged metadata: chunks of \(2, 32, 0\)"),
        ("dtype", "x", "cannot be opened as Zarr"),
    ],
)
def test_impossible_shapes_are_reported_by_name(tmp_path, key, value, message):
    write(tmp_path / "a", "CYX", zarr_format=2)
    document = json.loads((tmp_path / "a" / ".zarray").read_text())
    (tmp_path / "a" / ".zarray").write_text(json.dumps({**document, key: value}))
    with pytest.raises(SourceError, match=f"/a: .*{message}"):
        open_source(tmp_path / "a", axes="CYX")


@pytest.mark.parametrize(("zarr_format", "key"), [(2, r"1\.2"), (3, "c/1/2")])
def test_a_damaged_chunk_is_reported_by_array_and_chunk_and_the_others_are_read(tmp_path, zarr_format, key):
    expected = write(tmp_path / "a", "YX", zarr_format=zarr_format)
    path = tmp_path / "a" / key.replace("\\", "")
    path.write_bytes(path.read_bytes()[:40] + bytes(60))
    with closing(open_source(tmp_path / "a")) as source:
        for _ in range(2):
            with pytest.raises(SourceError, match=rf"/a: chunk {key} \(pixels y 32:64, x 96:117\) cannot be read: \w"):
                read(source)
        np.testing.assert_array_equal(read(source, Box(Span(0, 32), Span(0, WIDTH)))[..., 0], expected[:32])


def test_a_missing_chunk_has_the_fill_value(tmp_path):
    expected = write(tmp_path / "a", "YX", fill_value=7)
    shutil.rmtree(tmp_path / "a" / "c" / "1")
    expected[32:64] = 7
    assert_reads(tmp_path / "a", expected[..., None])


def test_a_folder_that_goes_away_is_no_folder_of_missing_chunks(tmp_path):
    write_ome(tmp_path / "a", "YX", "0.5")
    with closing(open_source(tmp_path / "a")) as source:
        shutil.move(tmp_path / "a", tmp_path / "b")
        with pytest.raises(SourceError, match=r"chunk 0/c/\d/\d .* cannot be read: .*zarr\.json is there no more"):
            read(source)


HALO_PLAN = ReadPlan(
    rows=[Span(max(0, y - 6), min(HEIGHT, y + 26)) for y in range(0, HEIGHT, 20)],
    columns=[Span(max(0, x - 6), min(WIDTH, x + 26)) for x in range(0, WIDTH, 20)],
)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("channels", "planes"), [(None, 3), ([1, 0], 1), ([4, 0], 2)])
def test_each_chunk_is_decoded_once_within_the_bytes_asked_for(tmp_path, channels, planes, workers):
    expected = plane(write(tmp_path / "a", "CYX"), "CYX")[..., channels or slice(None)]
    with closing(open_source(tmp_path / "a", axes="CYX", channels=channels, workers=workers)) as source:
        granted = source.cache_bytes(HALO_PLAN)
        source.prepare(HALO_PLAN, cache_bytes=granted)
        for rows, columns in itertools.product(HALO_PLAN.rows, HALO_PLAN.columns):
            box = Box(rows, columns)
            np.testing.assert_array_equal(read(source, box), expected[box.slices()])
        assert source.count().chunks_decoded == source.count().chunks_stored == planes * 3 * 3
        chunk_bytes = 32 * 48 * 2 * 2
        assert source._reader._cache.peak_bytes + min(workers, 4 * planes) * 2 * chunk_bytes <= granted
        assert source._reader._cache.held_bytes == 0
        source.prepare(HALO_PLAN, cache_bytes=0)
        np.testing.assert_array_equal(read(source, Box(HALO_PLAN.rows[0], HALO_PLAN.columns[0])), expected[:26, :26])
        assert source._reader._cache.peak_bytes == 0


def test_chunks_with_more_planes_ask_for_the_memory_to_decode_them(tmp_path):
    """A chunk of 40 planes needs forty times its pixels twice, as stored and decoded, but not while it is kept."""
    sizes = {}
    for depth in (1, 40):
        zarr.create_array(
            str(tmp_path / str(depth)), shape=(40, 64, 64), chunks=(depth, 32, 32), dtype="u1",
            dimension_names=["z", "y", "x"],
        )  # fmt: skip
        with closing(open_source(tmp_path / str(depth), z=3, workers=1)) as source:
            sizes[depth] = source.cache_bytes(ReadPlan(rows=[Span(0, 40), Span(24, 64)], columns=[Span(0, 64)]))
    assert sizes[40] - sizes[1] == 2 * 39 * 32 * 32


def test_chunks_too_large_to_decode_are_refused(tmp_path):
    zarr.create_array(str(tmp_path / "a"), shape=(60000, 60000), chunks=(60000, 60000), dtype="u1")
    with pytest.raises(SourceError, match=r"chunks of \(60000, 60000\) decode to 3600000000 bytes.*smaller chunks"):
        open_source(tmp_path / "a")


@pytest.mark.parametrize("workers", [1, 4])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_boxes_in_any_order_are_slices_of_the_image(tmp_path, workers, data):
    if not (tmp_path / "a").exists():
        write(tmp_path / "a", "YXC")
    image = samples("YXC")
    with closing(open_source(tmp_path / "a", workers=workers)) as source:
        for _ in range(data.draw(st.integers(1, 4))):
            y = sorted(data.draw(st.tuples(st.integers(0, HEIGHT), st.integers(0, HEIGHT))))
            x = sorted(data.draw(st.tuples(st.integers(0, WIDTH), st.integers(0, WIDTH))))
            box = Box(Span(*y), Span(*x))
            np.testing.assert_array_equal(read(source, box), image[box.slices()])


def test_closed_sources_read_nothing_more(tmp_path):
    write(tmp_path / "a", "YX")
    source = open_source(tmp_path / "a")
    source.close()
    source.close()
    with pytest.raises(SourceError, match="read after close"):
        read(source)


def test_an_array_in_memory_is_read_by_its_address():
    expected = write("memory://exactile-tests/a", "YXC", overwrite=True)
    assert_reads("memory://exactile-tests/a", expected)
    assert_reads(Path("memory://exactile-tests/a"), expected)
    with pytest.raises(SourceError, match="memory://exactile-tests/nothing: cannot be opened as Zarr"):
        open_source("memory://exactile-tests/nothing")


class Quiet(SimpleHTTPRequestHandler):
    """Lists no folders, as most servers."""

    def list_directory(self, path) -> None:
        self.send_error(403)

    def log_message(self, *_arguments) -> None: ...


@pytest.fixture
def server(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_an_image_is_read_over_http(tmp_path, server):
    full = write_ome(tmp_path / "image.zarr", "CYX", "0.4")
    assert_reads(f"{server}/image.zarr", plane(full, "CYX")[::2, ::2], level=1)
    with pytest.raises(SourceError, match=r"nothing\.zarr: cannot be opened as Zarr"):
        open_source(f"{server}/nothing.zarr")


def test_series_are_found_on_a_server_that_lists_nothing(tmp_path, server):
    write_ome(tmp_path / "0", "YX", "0.4")
    second = write_ome(tmp_path / "1", "CYX", "0.4")
    zarr.open_group(str(tmp_path), mode="a", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    assert_reads(f"{server}/", plane(second, "CYX"), series=1)
    with pytest.raises(SourceError, match=r"'2', which should be in it, cannot be opened"):
        open_source(f"{server}/", series=2)
    zarr.open_group(str(tmp_path / "plate"), mode="w").attrs["ome"] = {"plate": {}}
    with pytest.raises(SourceError, match=r"is a plate.*holds nothing that can be listed"):
        open_source(f"{server}/plate")


def test_a_server_that_fails_is_no_server_of_missing_chunks(tmp_path, server, monkeypatch):
    full = write_ome(tmp_path / "image.zarr", "YX", "0.5")
    with closing(open_source(f"{server}/image.zarr", workers=1)) as source:
        np.testing.assert_array_equal(read(source)[..., 0], full)
        monkeypatch.setattr(Quiet, "do_GET", lambda self: self.send_error(500))
        source.prepare(HALO_PLAN, cache_bytes=0)
        with pytest.raises(SourceError, match=r"image\.zarr: chunk 0/c/0/0 .* cannot be read: .*500"):
            read(source)


def test_addresses_of_no_known_kind_are_refused():
    with pytest.raises(SourceError, match=r"gopher://host/image\.zarr: cannot be opened as Zarr: .*gopher"):
        open_source("gopher://host/image.zarr")


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "a", "YX")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(SourceError, match=r"zarr package, which is not installed: pip install 'exactile\[zarr\]'"):
        open_source(tmp_path / "a")


def test_the_identity_follows_the_metadata_and_the_choice(tmp_path):
    write_ome(tmp_path, "TYX", "0.5")

    def identity(**options) -> str:
        with closing(open_source(tmp_path, **options)) as source:
            return json.dumps(source.identity())

    assert identity(t=0) == identity(t=0)
    assert len({identity(t=0), identity(t=1), identity(t=0, level=1)}) == 3
    first = identity(t=0)
    zarr.open_group(str(tmp_path), mode="a").attrs["ome"] = {
        **zarr.open_group(str(tmp_path)).attrs["ome"], "omero": {}
    }  # fmt: skip
    assert identity(t=0) != first


def test_labels_from_zarr_are_those_from_the_same_pixels_in_memory(tmp_path):
    image = np.random.default_rng(2).integers(0, 255, (3, 150, 170), dtype=np.uint8)
    array = zarr.create_array(str(tmp_path / "a"), shape=image.shape, chunks=(1, 64, 64), dtype="u1")
    array[...] = image
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="unet_d2")
    deployed = deploy(network, image_dtype="uint8", output="labels")
    labels = []
    for source in (open_source(tmp_path / "a", axes="CYX"), ArraySource(np.moveaxis(image, 0, 2))):
        sink = ArraySink()
        summary = Session(deployed, memory_bytes=8 << 30).segment(source, sink, plan="tile", tile=(96, 96))
        labels.append(sink.result)
        source.close()
    np.testing.assert_array_equal(*labels)
    assert summary.plan == "tile"
