"""Damaged and hostile files by the hundred end in a clear error or a right result, in bounded time and memory."""

from __future__ import annotations

import pytest

from fuzz.contract_cases import MUTATIONS as CONTRACT_MUTATIONS
from fuzz.czi_bases import BASES as CZI_FILES
from fuzz.czi_cases import MUTATIONS as CZI_MUTATIONS
from fuzz.dicom_bases import BASES as SLIDES
from fuzz.harness import try_all
from fuzz.models import BUNDLE
from fuzz.onnx_cases import MUTATIONS as ONNX_MUTATIONS
from fuzz.picture_bases import BASES as PICTURES
from fuzz.recipe import Recipe
from fuzz.tiff_bases import BASES, tiff_base
from fuzz.tiff_cases import MUTATIONS as TIFF_MUTATIONS
from fuzz.tiff_cases import tiff_case
from fuzz.trial import prepare, recipe_of

KINDS = ("tiff", "picture", "czi", "dicom", "contract", "onnx")
CASES = {"tiff": 400, "picture": 400, "czi": 400, "dicom": 300, "contract": 300, "onnx": 300}
FIRST_SEED = 1_000_000

FOUND = {
    "tiff": [
        # Pixels of another file's bytes: the header itself, uninitialised memory, compressed tiles as samples.
        ("imagej channels", "chunk offset", 15694),
        ("imagej channels", "chunk offset", 11007),
        ("planar", "samples", 2265),
        ("planar", "samples", 3854),
        ("tiles zlib", "image size", "compression", 3509),
        ("planar raw", "tag type", 14112),
        # Minutes or gigabytes in tifffile before the first pixel.
        ("ome", "description", 157),
        ("tiles none", "description", 1314),
        ("one strip", "description", 1340),
        ("pyramid", "many directories", 270),
        ("pyramid jpeg", "many directories", 1949),
        ("strips lzw", "sub-directory loop", "many directories", 12538),
        # A message as long as the directory.
        ("float32 predictor", "tag count", 1572),
        # tifffile takes the bytes of another chunk for one whose byte count is 0; not so here.
        ("planar raw", "byte count", 128),
        ("tiles packbits", "byte count", 1361),
        ("grey jpeg tiles", "byte count", 1522),
    ],
    "picture": [
        # Rows that lie beyond the file, and in its header.
        ("bmp 1 bit", "colours and bits", 1892),
        ("bmp grey", "a size", 2044),
        ("bmp rgb", "a size", 2370),
        ("bmp palette", "colours and bits", 3399),
        # Pixels that the decoder made up behind the last ones.
        ("jpeg grey", "a size", 1837),
        ("jpeg grey", "bytes inserted", "a size", 4064),
        # A codestream without an end, and one of other samples than its box says.
        ("j2k rgb", "a sector lost", 208),
        ("jp2 rgb", "a sector lost", 3947),
        ("jp2 16 bits", "bits with checksums", "colours and bits", 5930),
    ],
    "czi": [
        # Pixels that the library makes up where a codestream of JPEG XR has another size than its container.
        ("grey jpeg xr", "bits anywhere", 11090),
        ("grey jpeg xr", "stored bits", 12259),
        ("grey jpeg xr", "stored bits", 12535),
        ("deep jpeg xr", "a stream's start", 13830),
    ],
    "dicom": [
        # Two gigabytes for a frame that would lie beyond the file.
        ("full jpeg", "an item", 2048),
        # Messages with control characters.
        ("full implicit", "a form", 200003),
        ("sparse paths", "a sector lost", "a form", 202176),
        # Damage that wsidicom reads over, so that the pixels are right.
        ("sparse jpeg-ls", "a length", "a length", 201790),
        ("full jpeg", "bits before the pixels", "bits anywhere", 203057),
    ],
    "contract": [
        # Another result: weights found one byte further on.
        (BUNDLE, "another number", "one more or less", 3),
        (BUNDLE, "one more or less", 10),
        (BUNDLE, "another number", 18),
        (BUNDLE, "another number", 349),
        # Errors that were not ours: nesting without end, text that is no UTF-8; messages of a million characters.
        (BUNDLE, "raw JSON", 15),
        (BUNDLE, "raw JSON", 308),
        (BUNDLE, "encoding", 275),
        (BUNDLE, "another string", 202),
        (BUNDLE, "something more", 338),
        (BUNDLE, "another string", 2000753),
        # Gigabytes for a stride of 2^31 pixels, and for the list of 15 million channels.
        (BUNDLE, "another number", 51782),
        (BUNDLE, "another number", 53564),
        (BUNDLE, "exchanged", 50717),
    ],
    "onnx": [
        # Errors that were not ours, from the walk over graphs whose values contradict their operators.
        ("asymmetric", "type of a tensor", 104),
        ("unet_bilinear_d1", "an attribute", 115),
        ("stain_unet", "bits of the end", 114),
        ("dilated", "rewired", 146),
        ("valid", "type of a tensor", 180),
        ("stain_unet", "an attribute", 181),
        ("low_resolution", "type of a tensor", 208),
        # A negative number of channels, by that of groups.
        ("dilated", "an attribute", 81530),
        # Minutes for a stride of 2^31 pixels.
        ("super_resolution", "an attribute", 2003593),
        # Messages that named no file, or were as long as the graph.
        ("low_resolution", "versions", 13),
        ("unet_bilinear_d1", "an attribute", 869),
        ("loop", "sizes of a tensor", 72697),
        ("fused", "bits of the end", "nested subgraphs", 70529),
        # The process died within ONNX Runtime, for a scale that was missing.
        ("quantised", "a name of nothing", 70652),
        # A zero point that was left out: tiles had lost what is below 0.
        ("quantised", "a name of nothing", 73067),
    ],
}
"""What the fuzzer found: base, mutations, seed."""


def failures(recipes, folder) -> list[str]:
    return [f"{recipe}: {found.detail}" for recipe, found in try_all(recipes, folder) if found.verdict == "failure"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which the cases of a kind find what they start from."""
    folders = {}

    def folder(kind):
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            prepare(kind, folders[kind])
        return folders[kind]

    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_found_stays_mended(prepared, kind):
    recipes = [
        Recipe(kind=kind, base=base, mutations=tuple(mutations), seed=seed) for base, *mutations, seed in FOUND[kind]
    ]
    assert failures(recipes, prepared(kind)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_hundreds_of_damaged_files_end_in_a_clear_error_or_a_right_result(prepared, kind):
    recipes = [recipe_of(kind, FIRST_SEED + index) for index in range(CASES[kind])]
    assert failures(recipes, prepared(kind)) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_damaged_files_end_in_a_clear_error_or_a_right_result(prepared, kind):
    recipes = [recipe_of(kind, 2 * FIRST_SEED + index) for index in range(5000)]
    assert failures(recipes, prepared(kind)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_intact_files_give_a_right_result_so_that_errors_mean_damage(prepared, kind):
    bases = {
        "tiff": list(BASES),
        "picture": list(PICTURES),
        "czi": list(CZI_FILES),
        "dicom": list(SLIDES),
        "contract": [BUNDLE],
        "onnx": ["unet_d1", "asymmetric", "valid", "stain_unet"],
    }[kind]
    recipes = [Recipe(kind=kind, base=base, mutations=("intact",), seed=0) for base in bases]
    outcomes = dict(try_all(recipes, prepared(kind)))
    assert {str(recipe): outcome.verdict for recipe, outcome in outcomes.items()} == dict.fromkeys(
        map(str, recipes), "right"
    )


def test_a_recipe_is_the_same_file_every_time_and_nearly_every_mutation_changes_it():
    changed = set()
    for seed in range(3):
        for mutation in TIFF_MUTATIONS:
            recipe = Recipe(kind="tiff", base="tiles jpeg", mutations=(mutation,), seed=seed)
            assert tiff_case(recipe) == tiff_case(recipe)
            if tiff_case(recipe) != tiff_base("tiles jpeg"):
                changed.add(mutation)
    assert set(TIFF_MUTATIONS) - changed == {"intact"}
    assert "intact" in CONTRACT_MUTATIONS
    assert "intact" in CZI_MUTATIONS
    assert "intact" in ONNX_MUTATIONS


@pytest.mark.parametrize(
    ("mutation", "detail"),
    [("dies", "the process died"), ("sleeps", "not finished"), ("grows", "MiB resident")],
)
def test_a_case_that_breaks_its_process_is_a_failure_and_the_next_one_is_tried(tmp_path, monkeypatch, mutation, detail):
    from fuzz import harness
    from tests.support import broken_child

    monkeypatch.setattr(harness, "CHILD_DEADLINE_S", 5.0)
    monkeypatch.setattr(harness, "CHILD_MOST_BYTES", 400 << 20)
    monkeypatch.setattr(harness, "_serve", broken_child.serve)
    recipes = [Recipe(kind="tiff", base="", mutations=(name,), seed=0) for name in (mutation, "nothing")]
    first, second = [outcome for _, outcome in harness.try_all(recipes, tmp_path, children=1)]
    assert first.verdict == "failure"
    assert detail in first.detail
    assert second.verdict == "right"
