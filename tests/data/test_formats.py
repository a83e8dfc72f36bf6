"""Data sets as libraries write them: every image has its true class, by SHA-256."""

from __future__ import annotations

import importlib
import io
import json
import random
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ilsvrc import meta_mat
from trees import Tree, below, picture, tar, tarred, written, zipped
from truth import (
    RANK,
    TEST,
    TRAIN,
    VAL,
    VAL_NAME,
    VAL_ORDER,
    WNIDS,
    WORDS,
    flat_val,
    layout_of,
    taken_for,
    train_tree,
    val_tree,
    wrong,
)

from tinyalex.cli.parser import main
from tinyalex.data import open_data
from tinyalex.data.layout import Layout
from tinyalex.data.packing.pack import pack
from tinyalex.errors import DataError


def counts(layout: Layout) -> tuple[int, int]:
    splits = [split for split, _, _ in taken_for(layout)]
    return splits.count("train"), splits.count("val")


def all_right(path: Path, expected: tuple[int, int] = (48, 16)) -> None:
    """Every image at `path` has its true class; a pack of it and its titles are right, too."""
    layout, _ = layout_of(path)
    assert wrong(layout) == []
    assert counts(layout) == expected


# Kaggle


def kaggle(*, csv: bool = True, xml: bool = True) -> dict[str, bytes]:
    """The rows of the csv in no order, with one to three boxes each; lists that count images."""
    rows = [
        f"{name},{' '.join(f'{key[0]} 1 2 30 40' for _ in range(1 + n % 3))} \n"
        for n, (key, name) in enumerate(VAL_NAME.items())
    ]
    random.Random(1).shuffle(rows)
    tree = {
        **below("ILSVRC/Data/CLS-LOC/train", train_tree()),
        **below("ILSVRC/Data/CLS-LOC/val", flat_val()),
        **{f"ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_{i:08}.JPEG": d for i, d in enumerate(TEST)},
        "ILSVRC/ImageSets/CLS-LOC/val.txt": "".join(
            f"{VAL_NAME[key]} {n}\n" for n, key in enumerate(VAL_ORDER, start=1)
        ).encode(),
        "ILSVRC/ImageSets/CLS-LOC/train_cls.txt": "".join(
            f"{w}/{w}_{i} {n}\n" for n, (w, i) in enumerate(TRAIN, start=1)
        ).encode(),
        "LOC_synset_mapping.txt": "".join(f"{w} {words}\n" for w, words in WORDS.items()).encode(),
        "LOC_sample_submission.csv": b"ImageId,PredictionString\n",
    }
    if csv:
        tree["LOC_val_solution.csv"] = "".join(["ImageId,PredictionString\n", *rows]).encode()
    if xml:
        boxes = "<annotation>{}</annotation>".format
        tree |= {
            f"ILSVRC/Annotations/CLS-LOC/val/{name}.xml": boxes(
                f"<filename>{name}</filename><object><name>{key[0]}</name></object>" * (1 + n % 2)
            ).encode()
            for n, (key, name) in enumerate(VAL_NAME.items())
        }
    return tree


@pytest.mark.parametrize("place", ["", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC"])
@pytest.mark.parametrize("tables", ["csv", "xml"])
def test_kaggle_from_any_of_its_folders(tmp_path: Path, place: str, tables: str) -> None:
    root = written(tmp_path / "kaggle", kaggle(csv=tables == "csv", xml=tables == "xml"))
    layout, notes = layout_of(root / place)
    assert wrong(layout) == []
    assert counts(layout) == (48, 16)
    assert {layout.titles[w] for w in WNIDS} == {
        words.partition(",")[0] for words in WORDS.values()
    }
    assert "train/n01440764/n01440764_0.JPEG" in layout.train["n01440764"]
    assert notes == ["Not used: 5 images in test."]


@pytest.mark.parametrize("packer", [zipped, tarred])
def test_kaggle_in_its_archive(tmp_path: Path, packer: Callable[[Path, Tree], Path]) -> None:
    archive = packer(tmp_path / "imagenet-object-localization-challenge", kaggle())
    all_right(archive)
    pack(archive, tmp_path / "p", 8, workers=2, say=lambda line: None)
    packed = open_data(tmp_path / "p", 8)
    whole = open_data(archive, 8)
    assert list(packed.train.names) == list(whole.train.names)
    assert packed.train.labels.tolist() == whole.train.labels.tolist()


def test_kaggle_without_tables_is_refused(tmp_path: Path) -> None:
    root = written(tmp_path / "kaggle", kaggle(csv=False, xml=False))
    with pytest.raises(DataError, match=r"put ILSVRC2012_devkit.*or LOC_val_solution\.csv"):
        layout_of(root)
    missing = kaggle(xml=False)
    missing["LOC_val_solution.csv"] = missing["LOC_val_solution.csv"].replace(b"val_00000003", b"x")
    with pytest.raises(DataError, match=r"val_00000003\.JPEG has no line in LOC_val_solution\.csv"):
        layout_of(written(tmp_path / "short", missing))
    with open(root / "LOC_val_solution.csv", "wb") as file:  # what the message asks for
        file.write(kaggle()["LOC_val_solution.csv"])
    all_right(root)


# WordNet ids in file names, and lists


def in_names(train: str, val: str) -> dict[str, bytes]:
    return {
        **{f"{train}/{w}_{10 * i}_{w}.JPEG": data for (w, i), data in TRAIN.items()},
        **{f"{val}/{VAL_NAME[key]}_{key[0]}.JPEG": data for key, data in VAL.items()},
    }


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("train_images", "val_images")])
def test_wordnet_ids_in_file_names(tmp_path: Path, train: str, val: str) -> None:
    all_right(written(tmp_path / "folder", in_names(train, val)))
    all_right(tarred(tmp_path / "x.tar", in_names(train, val)))


def test_a_name_without_an_id_is_no_proof(tmp_path: Path) -> None:
    tree = in_names("train", "val") | {"train/cat.0.JPEG": picture()}
    with pytest.raises(DataError, match="49 images in no class folder"):
        layout_of(written(tmp_path, tree))


def listed(first: int, *, order: list[str] = WNIDS) -> dict[str, bytes]:
    """train.txt and val.txt whose numbers count `order` from `first`."""
    number = {wnid: n for n, wnid in enumerate(order, start=first)}
    train = "".join(f"{w}/{w}_{i}.JPEG {number[w]}\n" for w, i in TRAIN)
    val = "".join(f"{VAL_NAME[key]}.JPEG {number[key[0]]}\n" for key in VAL_ORDER)
    return {"train.txt": train.encode(), "val.txt": val.encode()}


SETS = {**below("train", train_tree()), **below("val", flat_val())}
SHUFFLED = random.Random(2).sample(WNIDS, len(WNIDS))


@pytest.mark.parametrize("first", [0, 1, 100])
@pytest.mark.parametrize("folder", ["", "meta/"])
@pytest.mark.parametrize("order", [WNIDS, SHUFFLED])
def test_lists_are_used_where_the_training_images_prove_them(
    tmp_path: Path, first: int, folder: str, order: list[str]
) -> None:
    lists = {folder + name: data for name, data in listed(first, order=order).items()}
    all_right(written(tmp_path / "data", {**SETS, **lists}))


@pytest.mark.parametrize("first", [0, 1])
def test_lists_are_used_where_synsets_prove_them(tmp_path: Path, first: int) -> None:
    val = {"val.txt": listed(first, order=SHUFFLED)["val.txt"]}
    synsets = {"synsets.txt": "".join(f"{wnid}\n" for wnid in SHUFFLED).encode()}
    all_right(written(tmp_path / "data", {**SETS, **val, **synsets}))
    few = {"val.txt": b"".join(val["val.txt"].splitlines(keepends=True)[:3])}
    with pytest.raises(DataError, match="cannot be known from which one"):
        layout_of(written(tmp_path / "few", {**SETS, **few, **synsets}))


def test_lists_that_nothing_proves_are_refused(tmp_path: Path) -> None:
    val = {"val.txt": listed(0)["val.txt"]}
    one_for_all = {"train.txt": b"".join(f"{w}/{w}_0.JPEG 7\n".encode() for w in WNIDS)}
    counted = {
        "train.txt": b"".join(f"{w}/{w}_{i} {n}\n".encode() for n, (w, i) in enumerate(TRAIN))
    }
    for number, tree in enumerate(({}, one_for_all, counted)):
        path = written(tmp_path / str(number), {**SETS, **val, **tree})
        with pytest.raises(DataError, match=r"nothing proves .*synsets\.txt"):
            layout_of(path)
        written(path, listed(0))  # what the message asks for
        all_right(path)
    lacking = listed(0)["val.txt"].replace(b"val_00000002", b"x")
    path = written(tmp_path / "lacking", {**SETS, **listed(0), "val.txt": lacking})
    with pytest.raises(DataError, match=r"val_00000002\.JPEG has no class .*no line names it"):
        layout_of(path)


def test_the_devkit_is_believed_before_a_list(tmp_path: Path) -> None:
    ids = {wnid: n for n, wnid in enumerate(SHUFFLED, start=1)}
    synsets = [{"ILSVRC2012_ID": n, "WNID": w, "words": WORDS[w]} for w, n in ids.items()]
    truth = "".join(f"{ids[key[0]]}\n" for key in VAL_ORDER)
    kit = {
        "kit/data/meta.mat": meta_mat(synsets),
        "kit/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }
    all_right(written(tmp_path / "data", {**SETS, **listed(0, order=SHUFFLED[::-1]), **kit}))


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_archives_of_the_parts(tmp_path: Path, suffix: str) -> None:
    for name, tree in (("train", train_tree()), ("val", below("val", val_tree()))):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "zip":
            zipped(path, tree)
        else:
            tarred(path, tree, "w:gz" if suffix == "tar.gz" else "w")
    all_right(tmp_path)


# WebDataset

Fields = Callable[[str, int], dict[str, bytes]]


def shard(samples: list[tuple[str, bytes, dict[str, bytes]]]) -> bytes:
    """Samples as webdataset.TarWriter writes them: fields in alphabetical order."""
    members = {
        f"{key}.{field}": content
        for key, image, fields in samples
        for field, content in sorted({**fields, "jpg": image}.items())
    }
    return tar(members)


def shards(
    fields: Callable[[str, str], dict[str, bytes]], keys: bool = False, per_shard: int = 10
) -> dict[str, bytes]:
    """imagenet1k-train-0000.tar and so on. fields: by the WordNet id and the original file."""
    made = {}
    for split, images in (("train", TRAIN), ("validation", VAL)):
        order = random.Random(3).sample(list(images), len(images))
        samples = []
        for number, (wnid, i) in enumerate(order):
            original = f"{wnid}_{i}" if split == "train" else VAL_NAME[wnid, i]
            key = original if keys else f"{number:06}"
            samples.append((key, images[wnid, i], fields(wnid, original)))
        for n, at in enumerate(range(0, len(samples), per_shard)):
            made[f"imagenet1k-{split}-{n:04}.tar"] = shard(samples[at : at + per_shard])
    return made


def number_of(wnid: str, original: str) -> dict[str, bytes]:
    return {"cls": f"{RANK[wnid]}\n".encode()}


def told(wnid: str, original: str) -> dict[str, bytes]:
    """As in timm/imagenet-1k-wds."""
    text = {"label": RANK[wnid], "filename": f"{original}.JPEG", "class_name": wnid}
    return {**number_of(wnid, original), "json": json.dumps(text).encode()}


NUMBERS = {wnid: str(rank) for wnid, rank in RANK.items()}


@pytest.mark.parametrize("how", ["files", "one tar", "unpacked", "folders"])
def test_webdataset(tmp_path: Path, how: str) -> None:
    made = shards(told)
    if how == "files":
        path = written(tmp_path / "wds", {**made, "README.md": b"", "_info.json": b"{}"})
    elif how == "one tar":
        path = tarred(tmp_path / "all.tar", made)
    elif how == "folders":
        path = written(
            tmp_path / "wds",
            {f"{'val' if 'val' in name else 'train'}/{name[-8:]}": d for name, d in made.items()},
        )
    else:
        path = tmp_path / "wds"
        for name, data in made.items():
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                inside = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}
            written(path / name.removesuffix(".tar"), inside)
    all_right(path)


@pytest.mark.parametrize(
    ("fields", "keys", "names"),
    [
        (number_of, False, NUMBERS),
        (number_of, True, {}),
        (lambda wnid, original: {"CLS": wnid.encode()}, False, {}),
        (lambda wnid, original: {"cls": WORDS[wnid].encode()}, False, WORDS),
    ],
    ids=["numbers", "ids in the keys", "ids", "words"],
)
def test_what_a_class_of_webdataset_is_called(
    tmp_path: Path, fields: Any, keys: bool, names: dict[str, str]
) -> None:
    layout, _ = layout_of(written(tmp_path / "wds", shards(fields, keys)))
    assert wrong(layout, names) == []
    assert counts(layout) == (48, 16)


def test_one_shard_alone(tmp_path: Path) -> None:
    name, data = next(iter(shards(told, per_shard=48).items()))
    (tmp_path / name).write_bytes(data)
    all_right(tmp_path / name, (48, 0))


def test_samples_without_a_class_and_keys_that_come_again(tmp_path: Path) -> None:
    made = shards(told)
    bare = {**made, "imagenet1k-train-0099.tar": shard([("1", TEST[0], {"json": b"{}"})])}
    layout, notes = layout_of(written(tmp_path / "bare", bare))
    assert wrong(layout) == []
    assert "Left out, because they have no .cls: 1 image." in notes
    again = [("1", TEST[0], {"cls": b"1"}), ("2", TEST[1], {"cls": b"2"})]
    twice = shard([*again, ("1", TEST[2], {"cls": b"3"})])  # a dict keeps the last
    file = io.BytesIO()
    with tarfile.open(None, "w", file) as archive:
        for name in ("1.cls", "1.jpg", "2.cls", "2.jpg", "1.cls", "1.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"7"))
    assert twice != file.getvalue()
    with pytest.raises(DataError, match=r"several files of one name .*1\.cls"):
        layout_of(
            written(tmp_path / "twice", {**made, "imagenet1k-train-0099.tar": file.getvalue()})
        )


def test_webdataset_by_its_own_writer(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="its own writer makes the shards")
    for split, images in (("train", TRAIN), ("val", VAL)):
        pattern = str(tmp_path / f"imagenet-{split}-%06d.tar")
        with webdataset.ShardWriter(pattern, maxcount=20, verbose=0) as writer:
            for (wnid, i), data in images.items():
                key = f"{wnid}_{i}" if split == "train" else VAL_NAME[wnid, i]
                writer.write({"__key__": key, "jpg": data, "cls": RANK[wnid]})
    all_right(tmp_path)


# Hugging Face


def rows_of(images: dict[tuple[str, int], bytes], paths: bool = True) -> list[dict[str, Any]]:
    names = {(w, i): f"{w}_{i}_{w}.JPEG" if (w, i) in TRAIN else "" for w, i in images}
    made = [
        {"image": {"bytes": d, "path": names[key] if paths else None}, "label": RANK[key[0]]}
        for key, d in images.items()
    ]
    return random.Random(4).sample(made, len(made))


def features(labels: list[str]) -> bytes:
    """What `datasets` puts into the schema."""
    label = {"names": labels, "_type": "ClassLabel"}
    return json.dumps(
        {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    ).encode()


def table_of(rows: list[dict[str, Any]], labels: list[str]) -> Any:
    pyarrow = pytest.importorskip("pyarrow", reason="pip install 'tinyalex[parquet]'")
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", image), ("label", pyarrow.int64())])
    return pyarrow.Table.from_pylist(rows, schema).replace_schema_metadata(
        {b"huggingface": features(labels)}
    )


def parquet(folder: Path, labels: list[str], paths: bool = True) -> Path:
    """Two shards to train on, one to validate, and one to test, whose labels are all -1."""
    parts = {
        "data/train-00000-of-00002-0123456789abcdef.parquet": rows_of(TRAIN, paths)[:30],
        "data/train-00001-of-00002-fedcba9876543210.parquet": rows_of(TRAIN, paths)[30:],
        "data/validation-00000-of-00001.parquet": [
            row | {"image": {"bytes": row["image"]["bytes"], "path": "ILSVRC2012_val_1.JPEG"}}
            for row in rows_of(VAL, paths)
        ],
        "data/test-00000-of-00001.parquet": [
            {"image": {"bytes": data, "path": f"ILSVRC2012_test_{i}.JPEG"}, "label": -1}
            for i, data in enumerate(TEST)
        ],
    }
    write = importlib.import_module("pyarrow.parquet").write_table if _arrow() else None
    for name, rows in parts.items():
        table = table_of(rows, labels)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert write is not None
        write(table, folder / name, row_group_size=7)
    return folder


def _arrow() -> bool:
    pytest.importorskip("pyarrow", reason="pip install 'tinyalex[parquet]'")
    return True


DESCRIPTIONS = [WORDS[wnid] for wnid in WNIDS]


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    path = parquet(tmp_path / "imagenet-1k", DESCRIPTIONS)
    layout, notes = layout_of(path)
    assert wrong(layout) == []
    assert counts(layout) == (48, 16)
    assert layout.titles["n03710721"] == "maillot"  # two are: no identity
    assert notes == ["Left out, because they have no label: 5 images."]
    single, _ = layout_of(path / "data" / "train-00000-of-00002-0123456789abcdef.parquet")
    assert wrong(single) == []
    assert counts(single) == (30, 0)


def test_parquet_without_paths_has_the_names_of_its_labels(tmp_path: Path) -> None:
    path = parquet(tmp_path / "descriptions", DESCRIPTIONS, paths=False)
    layout, _ = layout_of(path)
    assert wrong(layout, WORDS) == []
    all_right(parquet(tmp_path / "wnids", WNIDS, paths=False))
    twice = parquet(tmp_path / "twice", [*DESCRIPTIONS[:-1], "crane"], paths=False)
    with pytest.raises(DataError, match=r"names several labels 'crane'"):
        layout_of(twice)


@pytest.mark.slow
def test_parquet_is_packed_and_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, target = parquet(tmp_path / "hf", DESCRIPTIONS), tmp_path / "packed"
    assert main(["data", "check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Hugging Face (Parquet)" in out
    assert "n01440764 (tench): 6, data/train-0000" in out
    assert main(["data", "pack", str(path), "-o", str(target), "--size", "32"]) == 0
    lines = [json.loads(line)["name"] for line in (target / "train.jsonl").read_text().splitlines()]
    assert lines == sorted(lines)  # row group after row group
    whole, packed = open_data(path, 32), open_data(target, 32)
    assert list(packed.train.names) == list(whole.train.names)
    assert packed.classes == whole.classes == tuple(WNIDS)
    for index in (0, 17, 47):
        assert (packed.train.read(index) == whole.train.read(index)).all()
    assert main(["data", "check", str(path), "--against", str(target)]) == 0
    run = ["--arch", "mini", "-b", "8", "--max-steps", "2", "--output-dir", str(tmp_path / "run")]
    assert main(["train", "--data", str(path), *run]) == 0
    assert main(["eval", str(tmp_path / "run"), "--data", str(target)]) == 0


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_files(tmp_path: Path, stream: bool) -> None:
    _arrow()
    import pyarrow

    for split, images in (("train", TRAIN), ("validation", VAL)):
        table = table_of(rows_of(images), DESCRIPTIONS)
        path = tmp_path / split / "data-00000-of-00001.arrow"
        path.parent.mkdir()
        write = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
        with pyarrow.OSFile(str(path), "wb") as file, write(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=9)
    written(tmp_path, {"dataset_dict.json": b"{}", "train/state.json": b"{}"})
    all_right(tmp_path)


def test_tables_that_are_not_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _arrow()
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "n": [1]}), path)
    with pytest.raises(DataError, match=r"has the columns text, n, and one of images"):
        layout_of(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train\.parquet cannot be read: .*Fetch it again"):
        layout_of(path)
    rows = [{"image": {"bytes": None, "path": "/etc/passwd"}, "label": n % 2} for n in range(4)]
    pyarrow.parquet.write_table(table_of(rows, ["a", "b"]), path)
    layout, _ = layout_of(path)
    with pytest.raises(DataError, match="no bytes but only a path"):
        layout.source.read(layout.train["a"][0])
    pyarrow.parquet.write_table(table_of([*rows, rows[0] | {"label": 2}], ["a", "b"]), path)
    with pytest.raises(DataError, match=r"train\.parquet has label 2, .* names for 2: 0 to 1"):
        layout_of(path)
    archive = zipped(tmp_path / "x.zip", {"a.parquet": path.read_bytes(), "README": b""})
    with pytest.raises(DataError, match="Unpack the archive"):
        layout_of(archive)


def test_without_pyarrow_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    path = written(tmp_path / "hf", {"data/train-00000-of-00001.parquet": b"PAR1"})
    for place in (path, path / "data" / "train-00000-of-00001.parquet"):
        with pytest.raises(DataError, match=r"pip install 'tinyalex\[parquet\]'"):
            layout_of(place)


def _datasets() -> Any:
    return pytest.importorskip("datasets", reason="its own writer makes the files")


def _hub(datasets: Any, images: dict[tuple[str, int], bytes]) -> Any:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=DESCRIPTIONS)}
    )
    return datasets.Dataset.from_list(rows_of(images), features=features)


def test_parquet_and_arrow_by_their_own_writer(tmp_path: Path) -> None:
    datasets = _datasets()
    sets = {"train": _hub(datasets, TRAIN), "validation": _hub(datasets, VAL)}
    for split, dataset in sets.items():
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        dataset.to_parquet(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    all_right(tmp_path / "hub")
    datasets.DatasetDict(sets).save_to_disk(tmp_path / "saved")
    all_right(tmp_path / "saved")
    written(
        tmp_path / "folders", {**below("train", train_tree()), **below("validation", val_tree())}
    )
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "folders"), cache_dir=str(tmp_path / "cache")
    )
    loaded.save_to_disk(tmp_path / "imagefolder")
    all_right(tmp_path / "imagefolder")


# Formats of others


def foreign() -> Iterator[tuple[str, dict[str, bytes]]]:
    record = (60).to_bytes(8, "little") + b"abcd" + b"\x0a\x36" + bytes(58) + b"efgh"
    yield "TFRecord", {"train-00000-of-01024": record, "validation-00000-of-00128": record}
    yield "TFRecord", {"imagenet2012-train.tfrecord-00000-of-00002": record}
    yield "LMDB", {"train_lmdb/data.mdb": bytes(16) + b"\xde\xc0\xef\xbe" + bytes(100)}
    yield "MXNet RecordIO", {"train.rec": b"\x0a\x23\xd7\xce" + bytes(60), "train.idx": b"0\t0\n"}
    yield "MDS", {"index.json": b'{"shards": []}', "shard.00000.mds": bytes(60)}
    yield "LitData", {"index.json": b'{"chunks": []}', "chunk-0-0.bin": bytes(60)}
    yield "Lance", {"data/0a1b.lance": bytes(60), "_versions/1.manifest": b""}
    yield "FFCV", {"train.beton": bytes(60)}
    yield "HDF5", {"train.h5": b"\x89HDF\r\n\x1a\n" + bytes(60)}
    yield "NumPy", {"train.npz": zip_of_arrays(), "val.npz": zip_of_arrays()}


def zip_of_arrays() -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.savez(file, data=np.zeros((2, 3072), np.uint8), labels=np.zeros(2, np.int64))
    return file.getvalue()


@pytest.mark.parametrize(("name", "tree"), list(foreign()))
def test_other_formats_are_named(tmp_path: Path, name: str, tree: dict[str, bytes]) -> None:
    path = written(tmp_path / "data", tree)
    way = r".*Python package \S+ into a folder named as its class, train/CLASS/NUMBER\.jpg"
    with pytest.raises(DataError, match=name + way):
        layout_of(path)
    first = next(file for file in tree if not file.endswith((".json", ".idx")))
    with pytest.raises(DataError, match=name + way):
        layout_of(path / first)
