"""Texts in ImageDescription that decide how tifffile reads a file: OME-XML, ImageJ, its own, Aperio's."""

from __future__ import annotations

_NAMESPACE = b'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'


def _ome(pixels: bytes = b"", content: bytes = b"<TiffData/>", before: bytes = b"") -> bytes:
    """Return OME-XML of one image, 90 x 70 pixels and 3 channels but for what ``pixels`` says."""
    attributes = {
        b"DimensionOrder": b"XYCZT", b"Type": b"uint8", b"SizeX": b"90", b"SizeY": b"70", b"SizeC": b"3",
        b"SizeZ": b"1", b"SizeT": b"1",
    }  # fmt: skip
    attributes |= dict(part.split(b"=", 1) for part in pixels.split(b";") if part)
    listed = b" ".join(name + b'="' + value + b'"' for name, value in attributes.items())
    channel = b'<Channel ID="Channel:0:0" SamplesPerPixel="3"/>'
    return (
        b'<?xml version="1.0" encoding="UTF-8"?>' + before + b"<OME " + _NAMESPACE
        + b'><Image ID="Image:0"><Pixels ID="Pixels:0" ' + listed + b">" + channel + content
        + b"</Pixels></Image></OME>"
    )  # fmt: skip


def _laughs() -> bytes:
    """Return entities that expand to 10^9 laughs."""
    entities = b'<!ENTITY e0 "ha">'
    for level in range(1, 10):
        entities += b'<!ENTITY e%d "' % level + b"&e%d;" % (level - 1) * 10 + b'">'
    return _ome(content=b"<TiffData/><!-- --><X>&e9;</X>", before=b"<!DOCTYPE OME [" + entities + b"]>")


DESCRIPTIONS: dict[str, bytes] = {
    "plain OME": _ome(),
    "huge SizeC": _ome(b"SizeC=2147483647"),
    "huge everything": _ome(b"SizeC=99999999;SizeZ=99999999;SizeT=99999999"),
    "SizeC beyond 64 bits": _ome(b"SizeC=999999999999999999999999"),
    "negative SizeC": _ome(b"SizeC=-3"),
    "SizeX of no number": _ome(b"SizeX=ninety"),
    "many planes": _ome(b"SizeZ=1000000", b'<TiffData IFD="0" PlaneCount="1000000"/>'),
    "another size": _ome(b"SizeX=91"),
    "another type": _ome(b"Type=uint16"),
    "unknown type": _ome(b"Type=quark"),
    "unknown order": _ome(b"DimensionOrder=ABCDE"),
    "missing directory": _ome(content=b'<TiffData IFD="99"/>'),
    "another file": _ome(
        content=b'<TiffData IFD="0"><UUID FileName="/etc/hostname">urn:uuid:00000000-0000-0000-0000-000000000000'
        b"</UUID></TiffData>"
    ),
    "many images": _ome().replace(b"<Image ", b'<Image ID="Image:1"/><Image ' * 5000, 1),
    "billion laughs": _laughs(),
    "external entity": _ome(before=b'<!DOCTYPE OME [<!ENTITY x SYSTEM "file:///etc/passwd">]>', content=b"&x;"),
    "broken UTF-8": _ome(content=b"<TiffData/><X>\xff\xfe\xc3\x28</X>"),
    "cut off": _ome()[:300],
    "nested": _ome(content=b"<A>" * 100_000),
    "nested and closed": _ome(content=b"<A>" * 50_000 + b"</A>" * 50_000),
    "ImageJ, a million images": b"ImageJ=1.53\nimages=1000000\nchannels=1000000\n",
    "ImageJ, negative": b"ImageJ=1.53\nimages=-1\nslices=-1\n",
    "ImageJ, hyperstack": b"ImageJ=1.53\nimages=6\nchannels=3\nslices=2\nhyperstack=true\n",
    "ImageJ, no number": b"ImageJ=1.53\nimages=many\n",
    "shaped, huge": b'{"shape": [1000000, 1000000, 1000000]}',
    "shaped, negative": b'{"shape": [-1, 70, 90]}',
    "shaped, other axes": b'{"shape": [70, 90, 3], "axes": "QYX"}',
    "shaped, twice": b'{"shape": [2, 70, 90, 3]}',
    "shaped, no list": b'{"shape": "all"}',
    "shaped, nested": b'{"shape": ' + b"[" * 100_000,
    "shaped, long number": b'{"shape": [' + b"9" * 10_000 + b"]}",
    "shaped, nothing": b'{"shape": []}',
    "Aperio": b"Aperio Image Library v12\r\n90x70 [0,0 90x70] (32x32) JPEG/RGB Q=70|AppMag = x|MPP = nan",
    "ScanImage": b"state.configPath = '\nstate.acq.numberOfFrames=1000000",
    "long": b"x" * 3_000_000,
    "STK": b"\x00" * 100,
}
