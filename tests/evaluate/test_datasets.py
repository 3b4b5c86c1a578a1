"""Every reader on a miniature of the real layout, and on what people's disks make of it."""

from __future__ import annotations

import json
import pickle
import resource
import time
from pathlib import Path

import miniatures
import numpy as np
import pytest
from miniatures import ALL, UNCOUNTED, pickled, picture, table, text

from looktwice.errors import LooktwiceError, UnknownName, UsageError
from looktwice.evaluate.datasets import Dataset, Query, dataset_names, open_dataset
from looktwice.evaluate.datasets.layout import FileLayout
from looktwice.evaluate.datasets.unpickle import unpickle
from looktwice.evaluate.groups import measure_group
from looktwice.sources import Source


def opened(name: str, root: Path) -> Dataset:
    ALL[name](root)
    return open_dataset(name, root, work=root.parent / "work", partial=True)


ONE_EACH = sorted({build: name for name, build in ALL.items()}.values())


def test_every_reader_has_a_miniature():
    others = {name for name in dataset_names() if not name.startswith("mmeb:")}
    assert others <= ALL.keys()


@pytest.mark.parametrize("name", ALL)
def test_items_and_queries_can_be_read_and_labels_name_them(name, tmp_path):
    dataset = opened(name, tmp_path / "root")
    for _ in range(2):  # items can be gone through again
        items = list(dataset.items)
        assert items and all(isinstance(item, Source) for item in items)
    ids = {item.id for item in items}
    assert len(ids) == len(items) and all(item.read() for item in items)
    assert len({item.uri for item in items}) == len(items) or name.startswith("hub")
    loaded = [query.load() for query in dataset.queries]
    assert all(item.image is not None or item.text for item in loaded)
    for labels in (dataset.qrels, *dataset.groups.values()):
        assert all({n for n, g in row.items() if g > 0} <= ids for row in labels.values())
    asked = {query.id for query in dataset.queries}
    assert asked >= {query for query, row in dataset.qrels.items() if row}
    perfect = {
        query: sorted(((n, float(g)) for n, g in row.items()), key=lambda pair: -pair[1])
        for query, row in dataset.qrels.items()
    }
    found = measure_group(perfect, dataset.qrels, [m for m in dataset.measures if not m.startswith("recall")])
    assert all(value == pytest.approx(1.0) for rows in found.per_query.values() for value in rows.values())


@pytest.mark.parametrize("name", [name for name in ALL if name not in UNCOUNTED])
def test_wrong_counts_are_refused_unless_they_are_asked_for(name, tmp_path):
    dataset = opened(name, tmp_path / "root")
    assert any("published" in note for note in dataset.notes)
    with pytest.raises(UsageError, match=r"is not complete; missing: .* published"):
        open_dataset(name, tmp_path / "root", work=tmp_path)


@pytest.mark.parametrize("name", [name for name in ALL if name != "folder"])
def test_an_empty_folder_gives_a_list_of_what_to_fetch(name, tmp_path):
    with pytest.raises(UsageError, match="missing: ") as error:
        open_dataset(name, tmp_path)
    assert len(str(error.value)) > 80 and str(error.value).endswith(".")


@pytest.mark.parametrize("name", [name for name in ONE_EACH if name != "folder"])
def test_whatever_file_goes_missing_is_named_or_not_needed(name, tmp_path):
    ALL[name](tmp_path / "whole")
    needed = 0
    for path in sorted(p for p in (tmp_path / "whole").rglob("*") if p.is_file()):
        path.rename(tmp_path / "taken")
        try:
            open_dataset(name, tmp_path / "whole", work=tmp_path / "work", partial=True)
        except UsageError as error:
            needed += 1
            assert "missing: " in str(error) or "no queries" in str(error)
        (tmp_path / "taken").rename(path)
    assert needed >= 2


@pytest.mark.parametrize("name", ONE_EACH)
def test_damaged_label_files_are_refused_with_a_sentence(name, tmp_path):
    """Cut in half, emptied, or replaced by noise: never a traceback, never a quiet miniature of the miniature."""
    ALL[name](tmp_path / "root")
    kinds = (".json", ".pkl", ".mat", ".csv", ".parquet", ".tsv", ".jsonl")
    for path in sorted(p for p in (tmp_path / "root").rglob("*") if p.suffix in kinds):
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"", bytes(range(256)), b"[]", b'{"images": [{"split": "test"}]}'):
            path.write_bytes(damaged)
            try:
                open_dataset(name, tmp_path / "root", work=tmp_path / "work", partial=True)
            except LooktwiceError as error:
                assert str(error).strip()
        path.write_bytes(whole)


def test_ilias_joins_by_object_and_splits_by_scale_and_clutter(tmp_path):
    dataset = opened("ilias-mini", tmp_path)
    assert dataset.qrels["été café_001/query/Q001_00.jpg"] == {
        "été café_001/pos/P001_00.jpg": 1,
        "été café_001/pos/P001_01.jpg": 1,
    }
    intervals = {"scale [0, 0.0688)", "scale [0.273, inf)", "clutter [0, 18)", "clutter [33, 53)"}
    assert set(dataset.groups) == intervals | {"category product", "category product-drink"}
    query = "bold_bimp_000/query/Q000_00.jpg"
    assert dataset.groups["category product-drink"] == {query: dataset.qrels[query]}
    assert "queries whose object is in no category: 1" in dataset.notes
    assert [item.id for item in dataset.items][-2:] == [
        "mini_ilias_yfcc100m-000000.tar/0001",
        "mini_ilias_yfcc100m-000000.tar/0002",
    ]
    assert dataset.measures[0] == "mAP@1k" and dataset.depth == 1000
    words = opened("ilias:text", tmp_path)
    assert words.queries[0].load().text == "object number 0"
    core = opened("ilias-core", tmp_path)
    assert len(list(core.items)) == 4 and any("not comparable" in note for note in core.notes)


def test_ilias_goes_without_categories_and_refuses_broken_ones(tmp_path):
    miniatures.ilias(tmp_path)
    (tmp_path / "misc/taxonomy.json").unlink()
    dataset = open_dataset("ilias-core", tmp_path, partial=True)
    assert not any("category" in name for name in dataset.groups)
    assert any("no figures by category" in note for note in dataset.notes)
    for broken in ({"product": []}, {"product": {"food": ["x"]}}, {"product": {"food": {"cake": "x"}}}):
        text(tmp_path / "misc/taxonomy.json", broken)
        with pytest.raises(UsageError, match=r"taxonomy\.json, product"):
            open_dataset("ilias-core", tmp_path, partial=True)


def test_ilias_refuses_a_scale_that_is_no_number(tmp_path):
    miniatures.ilias(tmp_path)
    text(tmp_path / "image_ids/positive_ids.txt", "bold_bimp_000/pos/P000_00.jpg,small,3\n")
    with pytest.raises(UsageError, match="scale and clutter"):
        open_dataset("ilias-core", tmp_path, partial=True)


def test_instre_reads_matlab_positions_from_one_and_takes_the_query_out(tmp_path):
    dataset = opened("instre", tmp_path)
    names = [item.id for item in dataset.items]
    assert dataset.qrels == {
        f"query/{names[0]}": {names[1]: 1, names[2]: 1, names[0]: -1},
        f"query/{names[1]}": {names[3]: 1, names[1]: -1},
    }


def test_gldv2_reports_private_queries_only(tmp_path):
    assert opened("gldv2", tmp_path).qrels == {"abcd": {"0a1b": 1, "0c2d": 1}}
    assert opened("gldv2:public", tmp_path).qrels == {"bcde": {"ffee": 1}}


def test_product1m_shares_labels_and_keeps_queries_without_an_answer(tmp_path):
    assert opened("product1m", tmp_path).qrels == {"q1": {"g1": 1, "g2": 1, "g3": 1}, "q2": {}}


def test_revisited_crops_and_has_three_protocols(tmp_path):
    dataset = opened("roxford5k+1m", tmp_path)
    assert dataset.queries[0].load().image.size == (20, 20)
    query, easy, hard, junk = "all_souls_000006", "all_souls_000013", "oxford_002985", "radcliffe_000001"
    assert dataset.groups["Easy"][query] == {easy: 1, hard: -1, junk: -1}
    assert dataset.groups["Medium"][query] == dataset.qrels[query] == {easy: 1, hard: 1, junk: -1}
    assert dataset.groups["Hard"][query] == {easy: -1, hard: 1, junk: -1}
    assert "revisitop1m/0/ab.jpg" in {item.id for item in dataset.items}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"gnd": []}, "entries"),
        ({"gnd": [{"easy": [9], "bbx": [0, 0, 1, 1]}]}, "positions below 4"),
        ({"gnd": [{"easy": [0], "bbx": [5, 5, 1, 1]}]}, "left, top, right, bottom"),
        ({"gnd": [{"easy": ["0"], "bbx": [0, 0, 1, 1]}]}, "positions"),
        ({"imlist": ["../../etc/passwd"]}, "names of images"),
        ({"qimlist": None}, "'qimlist'"),
    ],
)
def test_revisited_refuses_labels_that_make_no_sense(change, complaint, tmp_path):
    miniatures.revisited(tmp_path)
    path = tmp_path / "roxford5k/gnd_roxford5k.pkl"
    pickled(path, pickle.loads(path.read_bytes()) | change)
    with pytest.raises(UsageError, match=complaint):
        open_dataset("roxford5k", tmp_path, partial=True)


class Evil:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"not a pickle of plain data .* not loaded"):
        unpickle(pickled(tmp_path / "evil.pkl", {"gnd": [Evil(tmp_path / "was-here")]}))
    assert not (tmp_path / "was-here").exists()
    for code in (b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy\nload\n(S'x'\ntR."):
        (tmp_path / "evil.pkl").write_bytes(code)
        with pytest.raises(UsageError, match="it asks for"):
            unpickle(tmp_path / "evil.pkl")


@pytest.mark.parametrize("code", [b"\x80\x04Nr\xff\xff\xff\x0f.", b"Np4000000000\n.", b"Np-1\n.", b"Nr\0\0\0\xff."])
def test_a_pickle_that_numbers_things_far_beyond_its_length_is_refused(code, tmp_path):
    """Nine bytes took four gigabytes."""
    (tmp_path / "evil.pkl").write_bytes(code)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match="its memo index"):
        unpickle(tmp_path / "evil.pkl")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


class Records:
    """A kind of array whose state says that there are objects in plain bytes: reading one follows any address."""

    def __reduce__(self):
        state = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
        return np.dtype, ("V8", False, True), state


class Pointer:
    def __reduce__(self):
        return np.ndarray, ((1,), Records(), b"\x10\x20\x30\x40\x50\x60\0\0")


@pytest.mark.parametrize("evil", [Records(), Pointer(), np.zeros(2, [("a", "i4")]), np.datetime64("2020")])
def test_a_pickle_with_arrays_of_anything_but_numbers_is_refused(evil, tmp_path):
    with pytest.raises(UsageError, match="not a pickle of plain data"):
        unpickle(pickled(tmp_path / "evil.pkl", {"gnd": [evil]}))


@pytest.mark.parametrize("kind", ["i8", ">f4", "U3", "S2", "?", "O"])
def test_arrays_of_plain_kinds_come_back(kind, tmp_path):
    array = np.asarray([[1, 0], [2, 3], [4, 5]]).astype(kind).T
    found = unpickle(pickled(tmp_path / "x.pkl", array))
    assert found.dtype == array.dtype.newbyteorder("=") and found.tolist() == array.tolist()


def test_a_pickle_of_plain_data_and_arrays_is_read(tmp_path):
    value = {"a": [1, 2.5, "é", None], "b": np.arange(3), "c": np.float64(2.0)}
    for protocol in (0, 2, 4):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
        found = unpickle(tmp_path / "x.pkl")
        assert found["a"] == value["a"] and found["b"].tolist() == [0, 1, 2] and found["c"] == 2.0


def test_met_leaves_out_what_shows_no_artwork_and_says_how_many(tmp_path):
    dataset = opened("met", tmp_path)
    assert dataset.qrels == {"test_met/a.jpg": {"MET/5/0.jpg": 1, "MET/5/1.jpg": 1}}
    assert any("left out: 1" in note for note in dataset.notes)


def test_captions_count_five_and_are_asked_both_ways(tmp_path):
    words, pictures = opened("coco:t2i", tmp_path / "a"), opened("coco:i2t", tmp_path / "b")
    assert len(words.queries) == 5 and len(words.items) == 1
    assert len(pictures.queries) == 1 and len(pictures.items) == 5
    assert len(pictures.qrels["val2014/COCO_val2014_000000391895.jpg"]) == 5
    assert opened("sharegpt4v:t2i", tmp_path / "c").queries[0].load().text == "A long caption."


def test_sugarcrepe_asks_once_and_its_ids_do_not_tell_which_caption_is_right(tmp_path):
    miniatures.sugarcrepe(tmp_path)
    entry = {"filename": "000000085329.jpg"}
    entries = {str(i): {**entry, "caption": f"true {i}", "negative_caption": f"false {i}"} for i in range(200)}
    text(tmp_path / "add_att.json", entries)
    dataset = open_dataset("sugarcrepe", tmp_path, partial=True)
    assert len(dataset.queries) == 206 and len(dataset.items) == 412
    of = {item.id: item.text for item in dataset.items}
    for query, names in dataset.candidates.items():
        assert sorted(of[name].split()[0] for name in names) == ["false", "true"]
        assert [of[name].split()[0] for name in dataset.qrels[query]] == ["true"]
    # a scorer that cannot tell two captions apart leaves them in the order of their ids: about one half
    tied = {query: [(name, 1.0) for name in sorted(names)] for query, names in dataset.candidates.items()}
    assert 0.4 < measure_group(tied, dataset.qrels, ["success@1"])["success@1"] < 0.6
    assert dataset.candidates == open_dataset("sugarcrepe", tmp_path, partial=True).candidates
    assert set(dataset.groups) == {*(f"{name} by question" for name in dataset.means), *miniatures.SEVEN}


def test_mmeb_takes_the_first_candidate_for_right_and_repeats_once(tmp_path):
    dataset = opened("mmeb:DocVQA", tmp_path)
    (options,) = dataset.candidates.values()
    assert len(options) == 2 and dataset.qrels == {"q0": {options[0]: 1}}
    assert dataset.queries[0].load().text == "What is it?"
    assert [item.text for item in opened("mmeb:NIGHTS", tmp_path).items] == [None, None]
    with pytest.raises(UnknownName, match="DocVQA"):
        open_dataset("mmeb:DocQVA", tmp_path)


def test_mmeb_refuses_lists_of_different_length(tmp_path):
    miniatures.mmeb(tmp_path)
    row = {"qry_text": "a", "qry_img_path": "", "tgt_text": ["a", "b"], "tgt_img_path": [""]}
    table(tmp_path / "DocVQA/test-00000-of-00001.parquet", [row])
    with pytest.raises(UsageError, match="one length"):
        open_dataset("mmeb:DocVQA", tmp_path, partial=True)


def test_composed_queries_have_both_and_cirr_takes_the_reference_out(tmp_path):
    dataset = opened("cirr", tmp_path / "a")
    assert dataset.qrels == {"12060": {"dev-1-0-img0": 1, "dev-0-0-img0": -1}}
    item = dataset.queries[0].load()
    assert item.image is not None and item.text == "make it red"
    assert opened("circo", tmp_path / "b").qrels == {"0": {"8": 1, "15": 1}}


def test_cirr_subset_chooses_among_the_others_of_the_group(tmp_path):
    dataset = opened("cirr:subset", tmp_path)
    assert dataset.candidates == {"12060": ("dev-1-0-img0", "dev-2-0-img0")}
    assert dataset.measures == ("success@1", "success@2", "success@3") and len(dataset.items) == 3
    path = tmp_path / "cirr/captions/cap.rc2.val.json"
    (entry,) = json.loads(path.read_text())
    names = entry["img_set"]["members"]
    for members in (names[:1], names[1:], [*names, names[2]], [*names, "dev-9-9-img9"], "all"):
        text(path, [{**entry, "img_set": {"members": members}}])
        with pytest.raises(UsageError, match="members"):
            open_dataset("cirr:subset", tmp_path, partial=True)
        open_dataset("cirr", tmp_path, partial=True)  # which does not need them


def test_a_label_that_names_no_picture_of_the_split_is_refused(tmp_path):
    miniatures.cirr(tmp_path)
    path = tmp_path / "cirr/captions/cap.rc2.val.json"
    text(path, json.dumps(json.loads(path.read_text())).replace("dev-1-0-img0", "dev-9-9-img9"))
    with pytest.raises(UsageError, match="images of the split"):
        open_dataset("cirr", tmp_path, partial=True)


def test_beir_joins_title_and_text_and_asks_only_the_split(tmp_path):
    dataset = opened("beir", tmp_path)
    assert [item.text for item in dataset.items] == ["Cats purr", "dogs"]
    assert [query.id for query in dataset.queries] == ["q1"] and dataset.qrels == {"q1": {"d1": 2}}
    text(tmp_path / "qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nnobody\td1\t1\n")
    with pytest.raises(UsageError, match="query nobody"):
        open_dataset("beir", tmp_path)


def test_hub_writes_pictures_out_once(tmp_path):
    dataset = opened("hub", tmp_path / "root")
    written = list((tmp_path / "work/pictures").iterdir())
    assert len(written) == 1 and [item.id for item in dataset.items] == ["d1", "d2"]
    assert dataset.items[0].read() == written[0].read_bytes()
    table(tmp_path / "root/corpus/test-00000-of-00001.parquet", [{"id": "d1", "image": {"bytes": b"", "path": "x"}}])
    with pytest.raises(UsageError, match="image with bytes"):
        open_dataset("hub", tmp_path / "root", work=tmp_path / "work")


def test_folder_asks_every_picture_for_the_others(tmp_path):
    dataset = opened("folder", tmp_path / "mine")
    assert dataset.qrels["mug/a.jpg"] == {"mug/a.jpg": -1, "mug/b.jpg": 1}
    assert {q.id for q in dataset.queries} == {"mug/a.jpg", "mug/b.jpg", "nested/teapot/c.png", "nested/teapot/d.png"}
    assert {"alone/e.jpg", "loose.jpg"} <= {item.id for item in dataset.items}
    picture(tmp_path / "other/only.jpg")
    with pytest.raises(UsageError, match="two images"):
        open_dataset("folder", tmp_path / "other")


def test_paths_that_lead_out_of_the_folder_are_refused(tmp_path):
    miniatures.flickr30k(tmp_path / "root")
    path = tmp_path / "root/dataset_flickr30k.json"
    picture(tmp_path / "secret.jpg")
    for name in ("../../secret.jpg", str(tmp_path / "secret.jpg")):
        text(path, json.dumps(json.loads(path.read_text())).replace("36979.jpg", name))
        with pytest.raises(UsageError, match="outside"):
            open_dataset("flickr30k:t2i", tmp_path / "root", partial=True)


def test_ids_that_occur_twice_are_refused(tmp_path):
    miniatures.beir(tmp_path)
    text(tmp_path / "corpus.jsonl", '{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}\n')
    with pytest.raises(UsageError, match="'d1' occurs twice"):
        open_dataset("beir", tmp_path)


def test_an_id_that_occurs_twice_among_many_is_found_without_comparing_all_with_all(tmp_path):
    items = [Source(f"{i:06}", f"file:///{i}", "") for i in (*range(30_000), 29_999)]
    dataset = Dataset("Large", items, [Query(items[0])], {}, ("mAP@20",))
    begin = time.process_time()
    with pytest.raises(UsageError, match="'029999' occurs twice"):
        FileLayout("Large", tmp_path, "").finish(dataset)
    assert time.process_time() - begin < 2  # all with all: half a minute


def test_unknown_names_and_missing_roots(tmp_path):
    with pytest.raises(UnknownName, match="roxford5k"):
        open_dataset("roxford", tmp_path)
    with pytest.raises(UsageError, match="--root"):
        open_dataset("roxford5k", tmp_path / "nowhere")
