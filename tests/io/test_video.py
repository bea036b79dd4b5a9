import random
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from rlr.io import video
from rlr.io.video import read_video, write_video


def clip(frames=6, height=34, width=50):
    """Soft waves that move; each frame differs from the others."""
    t, y, x = (torch.arange(n, dtype=torch.float64) for n in (frames, height, width))
    waves = [torch.sin((x + 3 * t[:, None, None] + c) / 9 + y[:, None] / (11 + c)) for c in range(3)]
    return (0.5 + 0.4 * torch.stack(waves, 1)).float()


@pytest.fixture
def no_decord(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)


def test_what_is_written_is_read(tmp_path):
    frames = clip()
    write_video(tmp_path / "new" / "a.mp4", frames, 8)
    read = read_video(tmp_path / "new" / "a.mp4")
    assert read.fps == 8
    assert read.frames.dtype == torch.uint8
    assert read.frames.shape == frames.shape
    error = read.frames / 255 - frames
    assert error.abs().mean() < 0.02
    # the nearest frame is the right one, for all
    distances = (read.frames[:, None] / 255 - frames).flatten(2).norm(dim=2)
    assert distances.argmin(1).tolist() == list(range(6))


def test_colors_keep_their_place(tmp_path):
    frames = torch.zeros(2, 3, 32, 64)
    frames[0, 0], frames[1, 2] = 1, 1
    write_video(tmp_path / "a.mp4", frames, 8)
    assert ((read_video(tmp_path / "a.mp4").frames / 255 - frames).abs() < 0.03).all()


@pytest.mark.parametrize("width", [50, 16])
def test_both_routes_agree(tmp_path, monkeypatch, width):
    """At a width of 16 decord itself fails."""
    pytest.importorskip("decord")
    write_video(tmp_path / "a.mp4", clip(width=width), 23.976)
    one = read_video(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "decord", None)
    other = read_video(tmp_path / "a.mp4")
    assert torch.equal(one.frames, other.frames)
    assert one.fps == pytest.approx(other.fps)
    assert one.fps == pytest.approx(23.976)


def test_decord_may_be_set_to_tensors(tmp_path):
    decord = pytest.importorskip("decord")
    write_video(tmp_path / "a.mp4", clip(), 8)
    plain = read_video(tmp_path / "a.mp4")
    decord.bridge.set_bridge("torch")
    try:
        assert torch.equal(read_video(tmp_path / "a.mp4").frames, plain.frames)
    finally:
        decord.bridge.reset_bridge()


def test_the_same_frames_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", clip(), 8)
    write_video(tmp_path / "bytes.mp4", (clip() * 255).round().byte(), 8)
    write_video(tmp_path / "coarse.mp4", clip(), 8, crf=30)
    a, b, same, coarse = ((tmp_path / f"{name}.mp4").read_bytes() for name in ("a", "b", "bytes", "coarse"))
    assert a == b == same
    assert len(coarse) < len(a)
    # which would tie the bytes to the number of cores
    assert b"threads=1 " in a


def test_the_same_frames_give_the_same_bytes_whatever_memory_holds(tmp_path):
    """Noise with x264's defaults: 57 files in 250 encodings of one video."""
    generator, draw = torch.Generator().manual_seed(0), random.Random(0)
    frames = (clip(20, 48, 48) + 0.1 * torch.randn(20, 3, 48, 48, generator=generator)).clamp(0, 1)
    files, held = set(), []
    for _ in range(40):
        held.append(
            [np.full(draw.randrange(1, 60_000), draw.randrange(256), np.uint8) for _ in range(draw.randrange(12))]
        )
        if len(held) > 20:
            held.pop(draw.randrange(len(held)))
        write_video(tmp_path / "a.mp4", frames, 8)
        files.add((tmp_path / "a.mp4").read_bytes())
    assert len(files) == 1


def test_it_is_h264_that_browsers_play(tmp_path):
    av = pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", clip(), 29.97)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == pytest.approx(29.97)
        assert stream.codec_context.colorspace == 6


@pytest.mark.parametrize("fps", [1, 240])
def test_one_frame_and_the_ends_of_fps(tmp_path, fps):
    write_video(tmp_path / "a.mp4", clip(1), fps)
    read = read_video(tmp_path / "a.mp4")
    assert (len(read.frames), read.fps) == (1, fps)


@pytest.mark.parametrize(
    ("frames", "fps", "says"),
    [
        (clip(height=33), 8, r"even width.*50 × 33 pixels"),
        (clip(width=51), 8, r"even width.*51 × 34 pixels"),
        (clip(0), 8, r"F >= 1, got \(0, 3, 34, 50\)"),
        (clip()[:, :1], 8, r"\(6, 1, 34, 50\)"),
        (clip()[0], 8, r"\(3, 34, 50\)"),
        (clip() * 255, 8, r"pixels in \[0, 1\], got \[.*map them to \[0, 1\]"),
        (clip() * float("nan"), 8, r"nan"),
        (clip(), 0, "from 1 to 240 frames per second, got 0"),
        (clip(), 241, "got 241"),
        (clip(), float("nan"), "got nan"),
        (clip(), float("inf"), "got inf"),
    ],
)
def test_what_cannot_be_written_is_said_and_the_older_file_stays(tmp_path, frames, fps, says):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    with pytest.raises(ValueError, match=says) as caught:
        write_video(path, frames, fps)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"older"]


def test_crf_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r"crf from 0 .* to 51, got 52"):
        write_video(tmp_path / "a.mp4", clip(), 8, crf=52)


def test_a_full_disk_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="the disk is full; make room"):
        write_video(path, clip(), 8)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"older"]


def test_missing_packages_are_named(tmp_path, monkeypatch, no_decord):
    write_video(tmp_path / "a.mp4", clip(), 8)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'rlr\[video\]'"):
        write_video(tmp_path / "b.mp4", clip(), 8)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'rlr\[video\]'"):
        read_video(tmp_path / "a.mp4")


def test_a_missing_encoder_is_named(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    with pytest.raises(RuntimeError, match="no libx264"):
        write_video(tmp_path / "a.mp4", clip(), 8)


@pytest.fixture(params=["decord", "av"])
def route(request, monkeypatch):
    if request.param == "av":
        monkeypatch.setitem(sys.modules, "decord", None)
    else:
        pytest.importorskip("decord")


def test_files_that_are_no_videos_are_named(tmp_path, route):
    path = tmp_path / "a.mp4"
    with pytest.raises(FileNotFoundError, match=r"a\.mp4"):
        read_video(path)
    for data in (b"", b"nothing of the kind", np.random.default_rng(0).bytes(5000)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.mp4 is damaged or no video"):
            read_video(path)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_named(tmp_path, route, share):
    path = tmp_path / "a.mp4"
    write_video(path, clip(24), 8)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"a\.mp4 is (cut short|damaged)"):
        read_video(path)


def test_frames_are_not_lost_in_silence(tmp_path, route):
    """With the index in front, decord alone returns the frames that are left."""
    av = pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", clip(24), 8)
    path = tmp_path / "front.mp4"
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as to:
        stream = to.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        end = packets[-1].size
        for packet in packets:
            packet.stream = stream
            to.mux(packet)
    assert len(read_video(path).frames) == 24
    path.write_bytes(path.read_bytes()[:-end])
    with pytest.raises(ValueError, match=r"front\.mp4 is cut short"):
        read_video(path)


def test_a_damaged_stream_is_named(tmp_path, route):
    path = tmp_path / "a.mp4"
    write_video(path, clip(24), 8)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"a\.mp4"):
        read_video(path)


def test_nothing_is_imported_before_it_is_needed():
    assert not {"av", "decord"} & set(vars(video))


# ---------------------------------------------------------------- orientation and files that are cut

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video"


def both(monkeypatch, path):
    """What decord and PyAV read."""
    pytest.importorskip("decord")
    one = read_video(path)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "decord", None)
        return one, read_video(path)


@pytest.mark.parametrize(("name", "shape"), [("rotated_90", (8, 3, 192, 128)), ("rotated_180", (8, 3, 128, 192))])
def test_rotated_files_have_one_orientation_whichever_decoder(monkeypatch, name, shape):
    one, other = both(monkeypatch, FIXTURES / f"{name}.mp4")
    assert one.frames.shape == shape
    assert torch.equal(one.frames, other.frames)


TURNS = {0: (1, 0, 0, 1), 1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}
"""The matrix of a video that players turn clockwise by so many quarters."""


@pytest.mark.parametrize("turns", TURNS)
def test_frames_are_turned_as_the_file_says(tmp_path, route, turns):
    path = tmp_path / "a.mp4"
    write_video(path, clip(height=64, width=96), 8)
    plain, data = read_video(path).frames, path.read_bytes()
    a, b, c, d = TURNS[turns]
    # the matrix stands 40 bytes behind the name of the track's header, in fixed point (ISO/IEC 14496-12, 8.3.2)
    at = data.index(b"tkhd") + 44
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + matrix + data[at + 36 :])
    assert torch.equal(read_video(path).frames, torch.rot90(plain, -turns, (2, 3)))


@pytest.mark.parametrize(("name", "found"), [("cut.mkv", 14), ("cut.webm", 12)])
def test_cut_files_are_refused_with_the_frames_that_are_missing(route, name, found):
    says = (
        rf"{name} is cut short, and {found} of about 40 frames are left: its Segment ends at byte \d+ and the file at"
    )
    with pytest.raises(ValueError, match=says):
        read_video(FIXTURES / name)


CONTAINERS = {
    "mkv": "matroska",
    "webm": "matroska",
    "avi": "avi",
    "mov": "mov",
    "flv": "flv",
    "gif": "gif",
    "ts": "mpegts",
}


def contain(path, count=24):
    av = pytest.importorskip("av")
    codec = {"avi": "mpeg4", "flv": "flv", "gif": "gif"}.get(path.suffix[1:], "libx264")
    with av.open(str(path), "w", format=CONTAINERS[path.suffix[1:]]) as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "rgb8" if codec == "gif" else "yuv420p"
        for image in (clip(count, 64, 96) * 255).byte().permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("kind", CONTAINERS)
def test_whole_files_of_every_container_are_read_without_a_word(tmp_path, route, kind):
    path = tmp_path / f"a.{kind}"
    contain(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_video(path).frames.shape == (24, 3, 64, 96)


@pytest.mark.parametrize("share", [0.6, 0.95])
@pytest.mark.parametrize("kind", sorted(CONTAINERS.keys() - {"flv"}))
def test_cut_files_of_every_container_are_refused(tmp_path, route, kind, share):
    path = tmp_path / f"a.{kind}"
    contain(path)
    data = path.read_bytes()
    # an odd number is no multiple of the packets of MPEG-TS
    path.write_bytes(data[: int(share * len(data)) | 1])
    with pytest.raises(
        ValueError, match=rf"a\.{kind} is (cut short|damaged)|of the 24 frames of the video .*a\.{kind} decode"
    ):
        read_video(path)


def test_a_cut_file_without_a_stated_end_is_warned_of(tmp_path, route):
    path = tmp_path / "a.flv"
    contain(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"a\.flv has \d+ of about 24 frames of its duration"):
        read_video(path)
