"""Files that somebody might call a picture, to take the command down.

Elsewhere: every format and mode, 1,000 files, one decompression bomb, text, empty, cut and missing
files, pipes, animations, 1x1 pixel (`test_predict.py`); files at random (`test_fuzz.py`).
"""

import json
import os
import struct
import zlib
from pathlib import Path

from PIL import Image

from tests.faults.commands import Command

PNG = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def header(width: int, height: int) -> bytes:
    return PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def test_hostile_files_are_named_and_the_others_predicted(
    undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.linear_gradient("L").resize((28, 28)).save(folder / "good.png")
    whole = (folder / "good.png").read_bytes()
    bomb = zlib.compress(bytes(100 << 20), 9)
    tiff = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHII", 256, 3, 1, 28)
    bad = {
        "inflated text.png": whole[:33] + chunk(b"zTXt", b"note\0\0" + bomb) + whole[33:],
        "four billion.png": header(2**31 - 1, 2**31 - 1) + chunk(b"IDAT", bomb),
        "long and thin.png": header(2**31 - 1, 1) + chunk(b"IDAT", bomb),
        "no pixels.png": header(0, 0) + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        "loop.tif": tiff + struct.pack("<I", 8),
        "promises.bmp": b"BM"
        + struct.pack("<IIIIiiHHIIIIII", 9, 0, 54, 40, 2**30, 2**30, 1, 24, *[0] * 6),
        "page.jpg": b"<html><script>alert(1)</script></html>",
        "script.png": b"#!/bin/sh\ntouch touched\n",
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    with (folder / "huge.png").open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)  # a terabyte of zeros, none of them stored
    (folder / "around.png").symlink_to(folder / "around.png")
    (folder / "zeros.png").symlink_to("/dev/zero")

    checkpoint = f"checkpoint={undisturbed}/checkpoints/last.ckpt"
    arguments = (checkpoint, "images=images", "format=json", "picture=drawn.png")
    command = Command("predict", *arguments, cwd=tmp_path)
    assert command.wait() == 1
    assert "Traceback" not in command.err
    [item] = json.loads(command.out)
    assert item["image"] == "images/good.png"
    lines = sorted(command.err.splitlines())
    named = sorted([*bad, "huge.png", "around.png", "zeros.png"])
    assert len(lines) == len(named)
    for line, name in zip(lines, named, strict=True):
        assert line.startswith(f"error: images/{name}: ")
        assert len(line) < 200
    assert not (tmp_path / "touched").exists()


def test_a_folder_of_bad_files_alone_is_no_picture(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    checkpoint = f"checkpoint={undisturbed}/checkpoints/last.ckpt"
    command = Command("predict", checkpoint, "images=*.txt", "picture=drawn.png", cwd=tmp_path)
    command.fails_with("error: notes.txt: no image of a format that is read")
    assert not (tmp_path / "drawn.png").exists()
