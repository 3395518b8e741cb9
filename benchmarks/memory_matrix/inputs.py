"""One image in every form that is read, and the networks, made once in a folder."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from benchmarks.harness.worker import ROOT

TILE = 256
WHITE = 300
"""Columns at the right that are background."""

NORMALIZATION = ("--scale", "255", "--mean", "0.5", "--std", "0.25")
SOURCES = {
    "JPEG tiles": "tiles.tif",
    "one strip": "strip.tif",
    "Zarr 2048": "image.zarr",
    "npy": "image.npy",
    "PNG": "image.png",
    "JPEG 2000": "image.jp2",
    "palette": "palette.tif",
    "slide": "slide.svs",
}
"""What is measured, and the file that holds it."""

APERIO = "Aperio Image Library v11.2.1\r\n{0}x{1} (256x256) JPEG/RGB Q=85|AppMag = 20|MPP = 0.5"


@dataclass(slots=True, kw_only=True)
class Inputs:
    """Images of ``height`` x ``width`` pixels, RGB uint8, and networks, in ``folder``. Created at the first request.

    All hold the same pixels, but for ``palette``, which has colours of its own.
    """

    folder: Path
    height: int
    width: int
    _pixels: np.ndarray | None = field(default=None, init=False)

    def image(self, source: str) -> Path:
        path = self.folder / SOURCES[source]
        if not path.exists():
            getattr(self, f"_write_{path.stem}_{path.suffix[1:]}")(path)
        return path

    def network(self, name: str) -> Path:
        """Return the ONNX file."""
        if name == "stain_unet":
            return ROOT / "models" / "stain_unet.onnx"
        path = self.folder / f"{name}.onnx"
        if not path.exists():
            from benchmarks.networks import exported, unet

            path.write_bytes(exported(unet(16, 4)))
        return path

    def bundle(self, name: str, options: tuple[str, ...]) -> Path:
        """Return a bundle converted with ``options``."""
        path = self.folder / ("_".join([name, *options]).replace("--", "").replace("/", "") + ".bundle")
        if not path.exists():
            command = [sys.executable, "-m", "exactile", "convert", str(self.network(name)), "-o", str(path), *options]
            subprocess.run(command, check=True, capture_output=True)
        return path

    @property
    def pixels(self) -> np.ndarray:
        """Return the pixels as the JPEG tiles decode: smooth blots with noise, and white at the right."""
        if self._pixels is None:
            self._pixels = tifffile.imread(self.image("JPEG tiles"))
        return self._pixels

    def _drawn(self) -> np.ndarray:
        random = np.random.default_rng(0)
        coarse = random.integers(0, 256, (-(-self.height // 24), -(-self.width // 24), 3), dtype=np.uint8)
        image = np.kron(coarse, np.ones((24, 24, 1), np.uint8))[: self.height, : self.width]
        image = (image & 0xF0) | random.integers(0, 16, image.shape, dtype=np.uint8)
        image[:, -WHITE:] = 255
        return image

    def _encoded_tiles(self, image: np.ndarray) -> list[bytes]:
        rows, columns = -(-self.height // TILE), -(-self.width // TILE)
        padded = np.pad(image, ((0, rows * TILE - self.height), (0, columns * TILE - self.width), (0, 0)), mode="edge")
        cut = padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
        return [imagecodecs.jpeg8_encode(tile, level=85, colorspace="RGB", outcolorspace="YCBCR") for tile in cut]

    def _form(self) -> dict[str, object]:
        return {"shape": (self.height, self.width, 3), "dtype": np.uint8, "tile": (TILE, TILE), "photometric": "ycbcr",
                "subsampling": (1, 1), "compression": "jpeg"}  # fmt: skip

    def _write_tiles_tif(self, path: Path) -> None:
        tifffile.imwrite(path, iter(self._encoded_tiles(self._drawn())), **self._form())

    def _write_slide_svs(self, path: Path) -> None:
        """A pyramid as Aperio stores it."""
        image = self._drawn()
        with tifffile.TiffWriter(path) as tiff:
            described = APERIO.format(self.width, self.height)
            tiff.write(iter(self._encoded_tiles(image)), description=described, metadata=None, **self._form())
            for step in (4, 16):
                level = np.ascontiguousarray(image[::step, ::step])
                tiff.write(level, tile=(TILE, TILE), compression="jpeg", photometric="rgb", metadata=None)

    def _write_strip_tif(self, path: Path) -> None:
        tifffile.imwrite(path, self.pixels, rowsperstrip=self.height, compression="zlib", photometric="rgb")

    def _write_palette_tif(self, path: Path) -> None:
        colors = np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16) * 257
        tifffile.imwrite(path, self.pixels[..., 0], photometric="palette", colormap=colors, compression="zlib",
                         tile=(512, 512))  # fmt: skip

    def _write_image_zarr(self, path: Path) -> None:
        import zarr

        zarr.create_array(path, shape=self.pixels.shape, chunks=(2048, 2048, 3), dtype="u1")[:] = self.pixels

    def _write_image_npy(self, path: Path) -> None:
        np.save(path, self.pixels)

    def _write_image_png(self, path: Path) -> None:
        path.write_bytes(imagecodecs.png_encode(self.pixels, level=1))

    def _write_image_jp2(self, path: Path) -> None:
        path.write_bytes(imagecodecs.jpeg2k_encode(self.pixels, reversible=True))
