import base64
import dataclasses
import io
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from drn_jax.report import ClassRow, Panel, Report, curves, html, pictures, write

VOID = {"meta", "link", "img", "br"}
ROWS = [
    {"step": 1, "epoch": 1, "train_loss": 2.0, "learning_rate": 0.1},
    {"step": 1, "epoch": 1, "val_loss": 2.0, "val_top1": 0.5},
]

CURVES = curves.svg(ROWS)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def report(**changes) -> Report:
    whole = Report(
        title="DRN-C-26 on digits",
        summary="It names 97.31 % of the images.",
        scores={"top-1": 0.97312, "top-5": 1.0, "validation loss": 0.08765},
        facts={"model": "DRN-C-26", "parameters": "21.1 M"},
        command="python train.py --config=configs/digits.py",
        curves=CURVES,
        per_class=[
            ClassRow("seven", (250, 128, 7), {"images": 1234, "accuracy": 0.934}),
            ClassRow("eight", None, {"images": 0, "accuracy": None}),
        ],
        panels=[Panel("truth 7, predicted 7 (98 %)", True, [("image", noise(64, 64))])],
    )
    return dataclasses.replace(whole, **changes)


class Page(HTMLParser):
    """The elements of a page, whether they nest, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def images(page: str) -> list[np.ndarray]:
    found = []
    for attributes in Page(page).all("img"):
        data = (attributes["src"] or "").removeprefix("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            found.append(np.array(picture.convert("RGB")))
    return found


def test_the_page_references_nothing_outside_itself():
    page = html.render(report(heat="probability"))
    for tag, attributes in Page(page).elements:
        assert tag not in {"script", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "xlink:href", "srcset", "poster", "action"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), (tag, target)
    for target in re.findall(r"url\(([^)]*)\)", page):
        assert target.startswith("#")
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_the_browser_is_told_language_encoding_and_width():
    page = html.render(report())
    assert page.startswith("<!DOCTYPE html>")
    assert Page(page).all("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in Page(page).all("meta")
    assert any(meta.get("name") == "viewport" for meta in Page(page).all("meta"))
    assert "prefers-color-scheme: dark" in page


def test_it_reads_from_the_result_to_how_it_was_made():
    text = " ".join(Page(html.render(report())).text)
    story = [
        "DRN-C-26 on digits",
        "It names 97.31",
        "97.31",
        "cross-entropy",
        "seven",
        "predicted 7",
        "21.1 M",
        "python train.py",
    ]
    places = [text.index(story[0])]
    for part in story[1:]:
        places.append(text.index(part, places[-1] + 1))
    assert places == sorted(places)


EVIL = "<script>alert('&\"')</script>"


@pytest.mark.parametrize(
    "changes",
    [
        {"title": EVIL},
        {"summary": EVIL},
        {"scores": {EVIL: 0.5}},
        {"facts": {EVIL: EVIL}},
        {"command": EVIL},
        {"per_class": [ClassRow(EVIL, (1, 2, 3), {EVIL: 0.5})]},
        {"panels": [Panel(EVIL, None, [(EVIL, noise(8, 8))])]},
        {"panels": [Panel("", None, [])], "heat": EVIL},
    ],
)
def test_text_is_escaped_wherever_it_comes_from(changes):
    page = html.render(report(**changes))
    assert "<script" not in page
    assert EVIL in "".join(Page(page).text)


def test_an_embedded_image_decodes_to_the_same_pixels():
    given = [noise(64, 64, 1), noise(9, 200, 2), np.zeros((5, 5, 3), np.uint8)]
    panels = [
        Panel("one", True, [("a", given[0]), ("b", given[1])]),
        Panel("two", None, [("c", given[2])]),
    ]
    for image, wanted in zip(images(html.render(report(panels=panels))), given, strict=True):
        assert (image == wanted).all()


def test_every_image_has_its_size_and_says_what_it_shows():
    page = Page(html.render(report(panels=[Panel("a seven", True, [("truth", noise(9, 20))])])))
    (image,) = page.all("img")
    assert (image["width"], image["height"]) == ("20", "9")
    assert image["alt"] == "truth: a seven"


@pytest.mark.parametrize(("correct", "said"), [(True, "correct"), (False, "wrong"), (None, None)])
def test_a_verdict_is_said_in_words_and_only_where_there_is_one(correct, said):
    text = " ".join(Page(html.render(report(panels=[Panel("x", correct, [])]))).text)
    assert [word for word in ("correct", "wrong") if word in text] == ([said] if said else [])


def test_scores_are_percentages_with_two_decimals_and_losses_numbers():
    text = "".join(Page(html.render(report())).text)
    assert "97.31%" in text
    assert "100.00%" in text
    assert "0.0877" in text
    assert "8.77" not in text


def test_only_the_first_score_is_the_headline():
    page = html.render(report())
    assert page.count('class="headline"') == 1
    assert '<div class="headline"><dt>top-1</dt>' in page


def test_an_undefined_score_is_a_dash():
    page = html.render(report(scores={"mean IoU": float("nan")}))
    assert "nan" not in "".join(Page(page).text)
    assert "\N{EN DASH}" in "".join(Page(page).text)


def cells(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in rows
    ]


def test_the_table_shows_counts_shares_and_a_dash_for_an_absent_class():
    assert cells(html.render(report())) == [
        ["class", "images", "accuracy"],
        ["seven", "1,234", "93.40&thinsp;%"],
        ["eight", "0", "\N{EN DASH}"],
    ]


def test_numpy_numbers_are_counts_and_shares_too():
    values = {"pixels": np.int64(1), "IoU": np.float32(1), "none": np.nan}
    row = ClassRow("x", None, values)  # pyright: ignore[reportArgumentType]
    assert cells(html.render(report(per_class=[row])))[1:] == [
        ["x", "1", "100.00&thinsp;%", "\N{EN DASH}"]
    ]


def test_a_column_that_one_class_lacks_is_still_a_column():
    rows = [ClassRow("a", None, {"IoU": 0.5}), ClassRow("b", None, {"pixels": 3})]
    assert cells(html.render(report(per_class=rows)))[1:] == [
        ["a", "50.00&thinsp;%", "\N{EN DASH}"],
        ["b", "\N{EN DASH}", "3"],
    ]


def test_bars_are_as_long_as_the_share_and_swatches_of_the_class_colour():
    page = html.render(report())
    assert re.findall(r"--part:([\d.]+)%", page) == ["93.40"]
    assert re.findall(r"--color:(#\w+)", page)[0] == "#fa8007"


def test_headers_of_the_table_name_what_they_head():
    scopes = [header.get("scope") for header in Page(html.render(report())).all("th")]
    assert scopes == ["col", "col", "col", "row", "row"]


def test_the_heat_scale_is_shown_where_there_are_heat_maps():
    darkest, *_, lightest = ("#" + color.tobytes().hex() for color in pictures.heat_colors(9))
    page = html.render(report(heat="probability"))
    assert f"linear-gradient(90deg,{darkest}," in page
    assert f",{lightest})" in page
    assert "linear-gradient" not in html.render(report())


def test_what_is_empty_is_left_out():
    page = Page(html.render(Report(title="t", summary="s", scores={})))
    assert not page.all("section")
    assert not page.all("dl")


def test_two_renderings_are_byte_identical(tmp_path):
    write(tmp_path / "a.html", report())
    write(tmp_path / "b.html", report(curves=curves.svg(ROWS)))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_write_makes_the_folder_and_leaves_one_file(tmp_path):
    path = tmp_path / "runs" / "one" / "report.html"
    write(path, report())
    assert path.read_text(encoding="utf-8") == html.render(report())
    assert os.listdir(path.parent) == ["report.html"]


def test_the_page_is_as_readable_for_others_as_any_new_file(tmp_path):
    write(tmp_path / "report.html", report())
    (tmp_path / "other").touch()
    assert (tmp_path / "report.html").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_failed_rendering_leaves_the_old_page_and_nothing_else(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    broken = Panel("", None, [("float", np.zeros((4, 4, 3)))])  # pyright: ignore
    with pytest.raises(ValueError, match="uint8"):
        write(path, report(panels=[broken]))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_failed_replacement_leaves_the_old_page_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(source, target):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write(path, report())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_bucket_receives_the_same_page(bucket, tmp_path):
    write("gs://fake/run/report.html", report())
    write(tmp_path / "report.html", report())
    assert (bucket / "run/report.html").read_bytes() == (tmp_path / "report.html").read_bytes()


def test_tables_of_text_are_shown_with_their_notes_and_escaped():
    table = html.Table("Odd <table>", ("score", "here"), (("a & b", "1 %"),), ("<note>",))
    page = html.render(Report("A", "b", {}, tables=(table,)))
    assert '<h2 id="table0">Odd &lt;table&gt;</h2>' in page
    assert '<th scope="row">a &amp; b</th><td>1 %</td>' in page
    assert "<li>&lt;note&gt;</li>" in page
    empty = html.Table("None", (), (), ("nothing",))
    page = html.render(Report("A", "b", {}, tables=(empty,)))
    assert "<li>nothing</li>" in page
