"""PASCAL VOC's label table."""

from drn_jax.data.labels.pascal_voc import PASCAL_VOC


def test_there_are_the_background_and_twenty_classes_in_order_of_the_alphabet():
    assert len(PASCAL_VOC.names) == 21
    assert PASCAL_VOC.names[0] == "background"
    assert list(PASCAL_VOC.names[1:]) == sorted(PASCAL_VOC.names[1:])


def test_colours_are_those_of_the_development_kits_map():
    """Its loop, pixel by pixel: three bits of the id a turn, from the top bit of a colour down."""
    for label in PASCAL_VOC.labels:
        color, bits = [0, 0, 0], label.id
        for turn in range(8):
            for channel in range(3):
                color[channel] |= (bits >> channel & 1) << (7 - turn)
            bits >>= 3
        assert label.color == tuple(color), label.name
    assert PASCAL_VOC.colors == tuple(label.color for label in PASCAL_VOC.labels[:-1])


def test_masks_hold_the_class_ids_and_255():
    assert PASCAL_VOC.ids() == (*((i, i) for i in range(21)), (255, 255))


def test_other_names_in_circulation_are_known():
    listed = ["motorcycle" if name == "motorbike" else name for name in PASCAL_VOC.names]
    assert PASCAL_VOC.reordered(listed, "classes.txt") == tuple((i, i) for i in range(21))
