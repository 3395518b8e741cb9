"""DICOM Segmentations: the labels of a run, read back by pydicom, highdicom and wsidicom's own rules."""

from __future__ import annotations

from contextlib import closing

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import iter_pixels

from exactile.contract import LabelClass
from exactile.errors import OptionError, SinkError
from exactile.geometry import Box, Span
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.dicom.rle import rle_frame
from exactile.sinks.open import open_sink
from exactile.sinks.protocol import ResultSpec
from exactile.sources.array import ArraySource
from exactile.sources.open import open_source
from tests.plan.test_lanes import deployed
from tests.support.command import exactile
from tests.support.dicom_slides import Level, Slide, write
from tests.support.nets import onnx_file

SIZE = (530, 1203)
CLASSES = (
    LabelClass(value=0, name="background", rgb=(0, 0, 0)),
    LabelClass(value=1, name="tumour", rgb=(255, 0, 0), code="SCT:108369006:Neoplasm"),
    LabelClass(value=3, name="stroma", rgb=(0, 255, 0)),
)


@pytest.fixture
def slide(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 8, (1, 1, *SIZE, 3)).astype(np.uint8)
    folder = tmp_path / "slide"
    folder.mkdir()
    write(folder / "level.dcm", Level(pixels=pixels, tile=(256, 256)), Slide(), PatientID="P1")
    return folder


def spec_of(slide, dtype: str = "uint8", **changes) -> ResultSpec:
    made = {"height": SIZE[0], "width": SIZE[1], "channels": 0, "dtype": dtype, "labels": CLASSES, "model": "net"}
    return ResultSpec(**{**made, "instances": (str(slide / "level.dcm"),), **changes})


def labels_of(path) -> np.ndarray:
    """By pydicom: all frames, put together in rows of tiles."""
    dataset = dcmread(path)
    rows, columns = -(-dataset.TotalPixelMatrixRows // 512), -(-dataset.TotalPixelMatrixColumns // 512)
    frames = np.stack(list(iter_pixels(path))).reshape(rows, columns, 512, 512)
    whole = frames.transpose(0, 2, 1, 3).reshape(rows * 512, columns * 512)
    assert not whole[SIZE[0] :].any()
    assert not whole[:, SIZE[1] :].any()
    return whole[: SIZE[0], : SIZE[1]]


def written(path, spec: ResultSpec, labels: np.ndarray) -> None:
    sink = open_sink(path)
    sink.begin(spec)
    for top in range(0, SIZE[0], 200):
        for left in range(0, SIZE[1], 333):
            box = Box(Span(top, min(top + 200, SIZE[0])), Span(left, min(left + 333, SIZE[1])))
            sink.write(box, labels[box.y.start : box.y.stop, box.x.start : box.x.stop])
    sink.finish()


@pytest.mark.parametrize(("dtype", "largest"), [("uint8", 4), ("uint16", 4), ("uint16", 700)])
def test_labels_come_back_as_they_were(slide, tmp_path, dtype, largest):
    labels = np.random.default_rng(2).integers(0, largest, SIZE).astype(dtype)
    labels[:300] = 3
    path = tmp_path / "labels.dcm"
    written(path, spec_of(slide, dtype), labels)
    assert np.array_equal(labels_of(path), labels)
    by_highdicom = highdicom.seg.segread(path)
    assert np.array_equal(np.squeeze(by_highdicom.get_total_pixel_matrix(combine_segments=True)), labels)
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide", "labels.dcm"]


def test_the_segmentation_belongs_to_the_slide_and_names_its_classes(slide, tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[5:9, 7:100] = 1
    labels[400:, 900:] = 2
    path = tmp_path / "labels.dcm"
    written(path, spec_of(slide), labels)
    found, source = dcmread(path), dcmread(slide / "level.dcm", stop_before_pixels=True)
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "ImageOrientationSlide"):
        assert found.get(name) == source.get(name), name
    assert found.SeriesInstanceUID != source.SeriesInstanceUID
    assert (found.TotalPixelMatrixRows, found.TotalPixelMatrixColumns) == SIZE
    assert found.DimensionOrganizationType == "TILED_FULL"
    assert found.SegmentationType == "LABELMAP"
    assert found.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == (
        source.SOPInstanceUID
    )
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    theirs = source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert list(measures.PixelSpacing) == list(theirs.PixelSpacing)
    segments = {int(one.SegmentNumber): one for one in found.SegmentSequence}
    assert {number: one.SegmentLabel for number, one in segments.items()} == {
        0: "background", 1: "tumour", 2: "class 2", 3: "stroma",
    }  # fmt: skip
    types = {number: one.SegmentedPropertyTypeCodeSequence[0] for number, one in segments.items()}
    assert (types[1].CodingSchemeDesignator, types[1].CodeValue) == ("SCT", "108369006")
    assert (types[3].CodingSchemeDesignator, types[3].CodeMeaning) == ("99EXACTILE", "stroma")
    assert segments[1].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "net"


def test_a_run_writes_what_it_gives_elsewhere(slide, tmp_path):
    model = deployed("unet_d2", "labels")
    expected = ArraySink()
    with closing(open_source(slide)) as source:
        Session(model, threads=1).segment(source, expected)
        summary = Session(model, threads=1).segment(source, open_sink(tmp_path / "labels.dcm"), plan="tile")
    assert len(np.unique(expected.result)) > 1
    assert np.array_equal(labels_of(tmp_path / "labels.dcm"), expected.result)
    assert summary.plan == "tile"


def test_other_images_and_results_are_refused_before_the_run(slide, tmp_path):
    model = deployed("unet_d2", "labels")
    pixels = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(SinkError, match="belongs to a slide in DICOM files, and the image is not one"):
        Session(model, threads=1).segment(ArraySource(pixels), open_sink(tmp_path / "labels.dcm"))
    for changes, message in (
        ({"channels": 2, "dtype": "float32"}, "holds labels of uint8 or uint16"),
        ({"height": 64}, "has the size of its slide, 530 x 1203"),
    ):
        sink = open_sink(tmp_path / "labels.dcm")
        with pytest.raises(SinkError, match=message):
            sink.begin(spec_of(slide, **changes))
        sink.abort()
    with pytest.raises(OptionError, match="RLE frames and no pyramid"):
        open_sink(tmp_path / "labels.dcm", compression="zlib")
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide"]


def test_a_run_that_ends_early_leaves_nothing(slide, tmp_path):
    sink = open_sink(tmp_path / "labels.dcm")
    sink.begin(spec_of(slide))
    sink.write(Box(Span(0, 10), Span(0, 10)), np.ones((10, 10), np.uint8))
    with pytest.raises(SinkError):
        sink.finish()
    sink.abort()
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frames_are_packed_row_by_row(dtype):
    """As the standard wants it: no run goes on into the next row."""
    from pydicom.pixels.decoders.rle import _rle_decode_frame

    labels = np.repeat(np.arange(12).reshape(3, 4), 40, axis=1).astype(dtype) * (1 if dtype is np.uint8 else 257)
    decoded = bytes(_rle_decode_frame(rle_frame(labels), *labels.shape, 1, 8 * labels.itemsize))
    assert np.array_equal(np.frombuffer(decoded, np.dtype(dtype).newbyteorder("<")).reshape(labels.shape), labels)


def test_codes_of_classes_come_from_the_bundle(slide, tmp_path):
    """From the command that makes the bundle to the file."""
    network = onnx_file(tmp_path, "unet_d2", weights="classes")
    words = ["convert", network, "-o", tmp_path / "net.bundle", "--classes", "other,tumour,stroma"]
    done = exactile(*words, "--class-codes", "-,SCT:108369006:Neoplasm,-", "--no-verify")
    assert done.returncode == 0, done.stderr
    done = exactile("run", tmp_path / "net.bundle", slide, "-o", tmp_path / "labels.dcm")
    assert done.returncode == 0, done.stderr
    found = [
        (int(one.SegmentNumber), one.SegmentLabel, one.SegmentedPropertyTypeCodeSequence[0].CodeValue)
        for one in dcmread(tmp_path / "labels.dcm").SegmentSequence
    ]
    assert [(number, name) for number, name, _ in found] == [(0, "other"), (1, "tumour"), (2, "stroma")]
    assert [code for _, _, code in found[1:]] == ["108369006", "CLASS2"]
    for codes, message in (("-,SCT:1", "2 codes for 3 classes"), ("-,SCT:1,-", "a code is SCHEME:VALUE:MEANING")):
        done = exactile(*words, "--class-codes", codes, "--no-verify", "--overwrite")
        assert done.returncode == 2
        assert message in done.stderr
