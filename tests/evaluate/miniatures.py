"""The real layouts of published benchmarks, in miniature: two or three pictures, the true names and fields."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

SEVEN = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


def picture(path: Path, colour: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour * 40 % 256, 90, 160)).save(path)
    return path


def text(path: Path, content: str | list | dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def pickled(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=2))
    return path


def tar(path: Path, names: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i, name in enumerate(names):
            out = io.BytesIO()
            Image.new("RGB", (8, 8), (i, 0, 0)).save(out, "JPEG")
            entry = tarfile.TarInfo(name)
            entry.size = len(out.getvalue())
            archive.addfile(entry, io.BytesIO(out.getvalue()))
    return path


def table(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def ilias(root: Path) -> None:
    for i, name in enumerate(("bold_bimp_000", "été café_001")):
        picture(root / f"ilias_core/{name}/query/Q{i:03}_00.jpg", i)
        text(root / f"ilias_core/{name}/query/T{i:03}.txt", f"object number {i}\n")
        for j in (0, 1):
            picture(root / f"ilias_core/{name}/pos/P{i:03}_0{j}.jpg", 2 + i + j)
    names = ("bold_bimp_000", "été café_001")
    text(root / "image_ids/image_query_ids.txt", "".join(f"{n}/query/Q{i:03}_00.jpg,1\n" for i, n in enumerate(names)))
    text(root / "image_ids/text_query_ids.txt", "".join(f"{n}/query/T{i:03}.txt\n" for i, n in enumerate(names)))
    rows = [f"{n}/pos/P{i:03}_0{j}.jpg,{0.05 + 0.3 * j},{10 + 40 * j}\n" for i, n in enumerate(names) for j in (0, 1)]
    text(root / "image_ids/positive_ids.txt", "".join(rows))
    text(root / "misc/taxonomy.json", {"product": {"drink": {"tea": [names[0]]}, "food": {"other": ["unasked_002"]}}})
    tar(root / "mini_ilias/mini_ilias_yfcc100m-000000.tar", ["0001.jpg", "0002.jpg"])
    tar(root / "yfcc100m/yfcc100m-000000.tar", ["0003.jpg"])


def instre(root: Path) -> None:
    from scipy.io import savemat

    names = [f"INSTRE-S1/01a_canada_book/00{i}.jpg" for i in range(4)]
    for i, name in enumerate(names):
        picture(root / name, i)
    truth = np.empty((1, 2), dtype=object)
    truth[0, 0], truth[0, 1] = {"ok": np.array([[2, 3]])}, {"ok": np.array([[4]])}
    lists = {"imlist": np.array([names], dtype=object), "qimlist": np.array([names[:2]], dtype=object)}
    savemat(root / "gnd_instre.mat", {**lists, "gnd": truth})


def gldv2(root: Path) -> None:
    for folder, names in (("index", ("0a1b", "0c2d", "ffee")), ("test", ("abcd", "bcde", "cdef"))):
        for i, name in enumerate(names):
            picture(root / folder / name[0] / name[1] / name[2] / f"{name}.jpg", i)
    rows = ["id,images,Usage", "abcd,0a1b 0c2d,Private", "bcde,ffee,Public", "cdef,None,Ignored", "9999,None,Private"]
    text(root / "retrieval_solution_v2.1.csv", "\n".join(rows) + "\n")


def product1m(root: Path) -> None:
    def line(name: str, labels: str) -> str:
        return (
            f"{name}#####标题 {name}#####https://a.invalid/{name}.jpg#####https://b.invalid/{name}.jpg#####{labels}\n"
        )

    gallery = {"g1": "lipstick a", "g2": "lotion b", "g3": "lipstick a"}
    text(root / "product1m_gallery_ossurl_v2.txt", "".join(line(*row) for row in gallery.items()))
    text(root / "product1m_test_ossurl_v2.txt", line("q1", "lipstick a#;#lotion b") + line("q2", "unseen"))
    for name in gallery:
        picture(root / f"product1m_gallery_ossurl_v2/{name}.jpg")
    for name in ("q1", "q2"):
        picture(root / f"product1m_test_ossurl_v2/{name}.jpg")


def revisited(root: Path, which: str = "roxford5k") -> None:
    names, asked = ["all_souls_000013", "all_souls_000026", "oxford_002985", "radcliffe_000001"], ["all_souls_000006"]
    for i, name in enumerate(names + asked):
        picture(root / which / "jpg" / f"{name}.jpg", i, (40, 30))
    truth = [{"easy": [0], "hard": [2], "junk": np.array([3]), "bbx": [4.0, 5.0, 24.0, 25.0]}]
    pickled(root / which / f"gnd_{which}.pkl", {"imlist": names, "qimlist": asked, "gnd": truth})
    text(root / "revisitop1m/revisitop1m.txt", "0/ab.jpg\n1/cd.jpg\n")
    for name in ("0/ab.jpg", "1/cd.jpg"):
        picture(root / "revisitop1m/jpg" / name)


def rparis(root: Path) -> None:
    revisited(root, "rparis6k")


def met(root: Path) -> None:
    database = [{"id": 5, "path": "MET/5/0.jpg"}, {"id": 5, "path": "MET/5/1.jpg"}, {"id": 7, "path": "MET/7/0.jpg"}]
    asked = [{"path": "test_met/a.jpg", "MET_id": 5}, {"path": "test_other/b.jpg"}]
    for name in ("MET_database.json", "mini_MET_database.json"):
        text(root / "ground_truth" / name, database)
    for name in ("testset.json", "valset.json"):
        text(root / "ground_truth" / name, asked)
    for entry in database + asked:
        picture(root / "images" / entry["path"])


def flickr30k(root: Path) -> None:
    sentences = [{"raw": f"A dog number {i} .", "sentid": i} for i in range(5)]
    images = [
        {"filename": "36979.jpg", "split": "test", "imgid": 0, "sentences": sentences},
        {"filename": "65567.jpg", "split": "test", "imgid": 1, "sentences": sentences},
        {"filename": "absent.jpg", "split": "train", "imgid": 2, "sentences": sentences},
    ]
    text(root / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    picture(root / "flickr30k-images/36979.jpg")
    picture(root / "flickr30k-images/65567.jpg")


def coco(root: Path) -> None:
    sentences = [{"raw": f"A cat number {i}", "sentid": i} for i in range(6)]
    entry = {"filename": "COCO_val2014_000000391895.jpg", "filepath": "val2014", "split": "test"}
    text(root / "dataset_coco.json", {"images": [{**entry, "sentences": sentences}], "dataset": "coco"})
    picture(root / "val2014/COCO_val2014_000000391895.jpg")


def sharegpt4v(root: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": "A long\ncaption."}]
    entries = [{"id": f"sa_{i}", "image": f"sam/images/sa_{i}.jpg", "conversations": turns} for i in range(2)]
    text(root / "share-captioner_coco_lcs_sam_1246k_1107.json", entries)
    for entry in entries:
        picture(root / entry["image"])


def urban1k(root: Path) -> None:
    for i in (1, 2):
        picture(root / f"image/{i}.jpg", i)
        text(root / f"caption/{i}.txt", f"A street with {i} cars.\nA second line that nobody reads.\n")


def sugarcrepe(root: Path) -> None:
    for kind in SEVEN:
        entry = {"filename": "000000085329.jpg", "caption": f"true {kind}", "negative_caption": f"false {kind}"}
        text(root / f"{kind}.json", {"0": entry})
    picture(root / "val2017/000000085329.jpg")


def mmeb(root: Path) -> None:
    row = {"qry_text": "<|image_1|>\nWhat is it?", "qry_img_path": "DocVQA/q.jpg"}
    targets = {"tgt_text": ["right", "wrong", "right"], "tgt_img_path": ["", "", ""]}
    table(root / "DocVQA/test-00000-of-00001.parquet", [{**row, **targets}])
    pictures = {"tgt_text": ["<|image_1|>\n", "<|image_1|>\n"], "tgt_img_path": ["NIGHTS/b.jpg", "NIGHTS/a.jpg"]}
    table(root / "NIGHTS/test-00000-of-00001.parquet", [{**row, "qry_img_path": "NIGHTS/q.jpg", **pictures}])
    for name in ("DocVQA/q.jpg", "NIGHTS/q.jpg", "NIGHTS/a.jpg", "NIGHTS/b.jpg"):
        picture(root / "eval_images" / name)


def cirr(root: Path) -> None:
    names = [f"dev-{i}-0-img0" for i in range(3)]
    text(root / "cirr/image_splits/split.rc2.val.json", {name: f"./dev/{name}.png" for name in names})
    entry = {"pairid": 12060, "reference": names[0], "target_hard": names[1], "caption": "make it red"}
    text(root / "cirr/captions/cap.rc2.val.json", [{**entry, "img_set": {"id": 1, "members": names}}])
    for name in names:
        picture(root / f"dev/{name}.png")


def circo(root: Path) -> None:
    images = [{"id": i, "file_name": f"{i:012}.jpg"} for i in (4, 8, 15)]
    text(root / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": images})
    entry = {"id": 0, "reference_img_id": 4, "target_img_id": 8, "relative_caption": "has two dogs"}
    text(root / "annotations/val.json", [{**entry, "gt_img_ids": [8, 15], "shared_concept": "a dog"}])
    for image in images:
        picture(root / "COCO2017_unlabeled/unlabeled2017" / image["file_name"])


def beir(root: Path) -> None:
    lines = [
        {"_id": "d1", "title": "Cats", "text": "purr"},
        {"_id": "d2", "title": "", "text": "dogs", "image": "a.png"},
    ]
    text(root / "corpus.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    text(root / "queries.jsonl", '{"_id": "q1", "text": "who purrs?"}\n{"_id": "unasked", "text": "?"}\n')
    text(root / "qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\n")
    picture(root / "a.png")


def hub(root: Path) -> None:
    data = picture(root / "outside.png").read_bytes()
    pictures = [{"id": f"d{i}", "text": None, "image": {"bytes": data, "path": None}} for i in (1, 2)]
    table(root / "corpus/test-00000-of-00001.parquet", pictures)
    text(root / "queries/test.jsonl", '{"_id": "q1", "text": "a blue square"}\n')
    table(root / "qrels/test-00000-of-00001.parquet", [{"query-id": "q1", "corpus-id": "d1", "score": 1}])


def folder(root: Path) -> None:
    for name in ("mug/a.jpg", "mug/b.jpg", "nested/teapot/c.png", "nested/teapot/d.png", "alone/e.jpg", "loose.jpg"):
        picture(root / name)


ALL = {
    "ilias": ilias, "ilias:text": ilias, "ilias-mini": ilias, "ilias-mini:text": ilias, "ilias-core": ilias,
    "instre": instre, "gldv2": gldv2, "gldv2:public": gldv2, "product1m": product1m,
    "product1m:own": product1m, "met:all": met, "roxford5k": revisited,
    "roxford5k+1m": revisited, "rparis6k": rparis, "rparis6k+1m": rparis, "met": met, "met:val": met, "met-mini": met,
    "flickr30k:t2i": flickr30k, "flickr30k:i2t": flickr30k, "coco:t2i": coco, "coco:i2t": coco,
    "sharegpt4v:t2i": sharegpt4v, "sharegpt4v:i2t": sharegpt4v, "urban1k:t2i": urban1k, "urban1k:i2t": urban1k,
    "sugarcrepe": sugarcrepe, "mmeb:DocVQA": mmeb, "mmeb:NIGHTS": mmeb, "cirr": cirr, "cirr:subset": cirr,
    "circo": circo, "beir": beir, "hub": hub, "hub:test": hub, "folder": folder,
}  # fmt: skip
UNCOUNTED = ("product1m", "product1m:own", "beir", "hub", "hub:test", "folder")
