"""Binary Caffe models are read in both formats that Caffe has had, and nothing else is."""

import struct

import numpy as np
import pytest

from drn_jax.convert import caffemodel
from drn_jax.errors import UserError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""


def varint(value):
    """Seven bits a byte, the lowest first, all but the last marked; negative ones as 64 bits."""
    value &= 2**64 - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number, content):
    """A field on the wire: an integer as a varint, bytes and text with their length."""
    if isinstance(content, int):
        return varint(number << 3 | VARINT) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | LENGTH) + varint(len(content)) + content


def floats(values, packed=True):
    """Field `data` of a blob."""
    if packed:
        return field(5, struct.pack(f"<{len(values)}f", *values))
    return b"".join(varint(5 << 3 | FIXED32) + struct.pack("<f", v) for v in values)


def doubles(values, packed=True):
    """Field `double_data` of a blob."""
    if packed:
        return field(8, struct.pack(f"<{len(values)}d", *values))
    return b"".join(varint(8 << 3 | FIXED64) + struct.pack("<d", v) for v in values)


def shape(*sizes):
    """Field `shape` of a blob."""
    return field(7, field(1, b"".join(varint(size) for size in sizes)))


def four(*sizes):
    """The sizes of a blob before it had a `shape`."""
    return b"".join(field(number, size) for number, size in enumerate(sizes, 1))


def layer(name, *blobs, kind="Convolution"):
    """A layer of the present format."""
    return field(100, field(1, name) + field(2, kind) + b"".join(field(7, b) for b in blobs))


def old_layer(name, *blobs, kind=4):
    """A layer of the older format, whose type is a number."""
    return field(2, field(4, name) + field(5, kind) + b"".join(field(6, b) for b in blobs))


@pytest.fixture
def written(tmp_path):
    """`written(*parts)`: the path of a net with these fields."""

    def write(*parts):
        path = tmp_path / "net.caffemodel"
        path.write_bytes(field(1, "a net") + b"".join(parts))
        return path

    return write


KERNEL = [0.5, -1.0, 2.0, 3.0, 4.0, -0.25]


@pytest.mark.parametrize("make", [layer, old_layer])
@pytest.mark.parametrize("packed", [True, False])
def test_both_formats_are_read_packed_or_not(written, make, packed):
    path = written(
        make("data"),
        make("conv", shape(2, 3, 1, 1) + floats(KERNEL, packed), shape(2) + floats([7, 8], packed)),
        make("bare", shape(1, 2, 1, 3) + floats(KERNEL, packed)),
    )
    found = caffemodel.read(path)
    assert list(found) == ["conv.weight", "conv.bias", "bare.weight"]
    assert all(array.dtype == np.float32 for array in found.values())
    kernel = np.float32(KERNEL)
    np.testing.assert_array_equal(found["conv.weight"], kernel.reshape(2, 3, 1, 1))
    np.testing.assert_array_equal(found["conv.bias"], np.float32([7, 8]))
    np.testing.assert_array_equal(found["bare.weight"], kernel.reshape(1, 2, 1, 3))


@pytest.mark.parametrize("packed", [True, False])
def test_double_data_is_read(written, packed):
    path = written(layer("conv", shape(2) + doubles([0.1, 1e300], packed)))
    np.testing.assert_array_equal(caffemodel.read(path)["conv.weight"], [0.1, 1e300])


def test_four_sizes_of_older_files_are_read(written):
    fc = four(1, 1, 2, 3) + floats(KERNEL)
    path = written(old_layer("fc6", fc, four(1, 1, 1, 2) + floats([7, 8]), kind=14))
    found = caffemodel.read(path)
    np.testing.assert_array_equal(found["fc6.weight"], np.float32(KERNEL).reshape(1, 1, 2, 3))
    assert found["fc6.bias"].shape == (1, 1, 1, 2)


def test_a_packed_array_in_several_pieces_is_put_together(written):
    path = written(layer("conv", floats(KERNEL[:2]) + shape(6) + floats(KERNEL[2:])))
    np.testing.assert_array_equal(caffemodel.read(path)["conv.weight"], np.float32(KERNEL))


def test_fields_that_are_not_needed_are_skipped(written):
    extra = field(4, "data") + field(10, 1) + field(106, field(1, 64) + field(4, 3))
    path = written(
        field(3, "data"),
        field(4, 3),
        field(100, field(1, "conv") + field(7, shape(1) + floats([2])) + extra),
    )
    assert caffemodel.read(path)["conv.weight"].tolist() == [2]


def test_the_golden_file_holds_the_drawn_weights(golden, goldens):
    state = golden("context8_camvid").state
    found = caffemodel.read(goldens / "context8_camvid.caffemodel")
    assert found.keys() == state.keys()
    assert all(np.array_equal(found[name], state[name]) for name in state)


def refusal(path):
    """The one line that a file is refused with, without the path that it must begin with."""
    with pytest.raises(UserError) as caught:
        caffemodel.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (shape(2, 4) + floats(KERNEL), "conv.weight has 6 values, not those of its shape (2, 4)"),
        (shape(-2, -3) + floats(KERNEL), "6 values, not those of its shape (-2, -3)"),
        (shape(2**62, 2**62) + floats(KERNEL), f"6 values, not those of its shape ({2**62}, "),
        (four(1, 1, 2, 4) + floats(KERNEL), "not those of its shape (1, 1, 2, 4)"),
        (floats(KERNEL), "not those of its shape ()"),
        (shape(2, 3), "conv.weight has 0 values"),
    ],
    ids=["fewer", "negative", "immense", "four sizes", "no shape", "no values"],
)
def test_an_array_of_another_size_than_it_says_is_refused(written, blob, said):
    assert said in refusal(written(layer("conv", blob)))


def test_two_layers_of_one_name_are_refused(written):
    blob = shape(1) + floats([1])
    path = written(layer("conv", blob), layer("conv", blob))
    assert refusal(path) == "two layers with weights are named conv"


def test_a_layer_of_three_arrays_is_refused(written):
    blob = shape(1) + floats([1])
    assert "layer bn1 has 3 arrays" in refusal(written(layer("bn1", blob, blob, blob)))


def test_a_net_without_weights_is_refused(written):
    assert "holds no layer with weights" in refusal(written(layer("data")))


def test_a_file_cut_short_is_refused_wherever_it_is_cut(written, goldens):
    whole = (goldens / "context8_camvid.caffemodel").read_bytes()
    path = written()
    for end in (40, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert "cut short" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b'name: "VGG"\nlayer {\n  name: "conv1_1"\n}\n', "is a text file: a .prototxt describes"),
        ("# naïve\nname: 'VGG'".encode(), "is a text file"),
        (b"PK\x03\x04 and so on", "is no Caffe model but a zip archive as of PyTorch"),
        (b"\x80\x02\x8a\nl\xfc", "is no Caffe model but a pickle as of PyTorch"),
        (b"\x89HDF\r\n\x1a\n", "is no Caffe model but an HDF5 file"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is it a Caffe model?"),
        (b"\x00" * 1000, "can't be read as a Caffe model"),
        (bytes(range(256)), "can't be read as a Caffe model"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_it_is(tmp_path, content, said):
    path = tmp_path / "strange.caffemodel"
    path.write_bytes(content)
    assert said in refusal(path)


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    assert refusal(tmp_path / "missing.caffemodel") == "can't be read: No such file or directory"
    assert refusal(tmp_path) == "can't be read: Is a directory"


def test_a_file_of_pytorch_is_refused_with_the_command_that_reads_it(tmp_path, torch):
    path = tmp_path / "net.pth"
    for zipped in (True, False):
        torch.save({"conv.weight": torch.zeros(1)}, path, _use_new_zipfile_serialization=zipped)
        assert "`python -m drn_jax.convert torch` reads" in refusal(path)


def test_the_schema_does_not_clash_with_an_installed_caffe():
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("caffe.NetParameter")
