"""Check of a data set: what it holds, what is wrong with it, and what to do about each.

Every image is read and decoded as training would; nothing is ever changed.
"""

import hashlib
import statistics
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tinyalex.data.checking.file_quirks import ODDITIES, oddities
from tinyalex.data.checking.report import SHOWN_CLASSES, Count, Example, Finding, Report
from tinyalex.data.decode import Decoder
from tinyalex.data.formats.packed import AGAIN, check_size, digest, read_entries, read_manifest
from tinyalex.data.layout import Files, Groups, Layout, count_of, listed, reading_order
from tinyalex.data.mounts import open_storage
from tinyalex.data.opening import NO_SECOND, check_trainable, matched, recognise
from tinyalex.data.parallel import in_order
from tinyalex.data.unreadable import too_many
from tinyalex.errors import DataError, printable

_SIZE = 32  # to which images are decoded here: only whether they can be decoded matters


def check(
    path: Path,
    *,
    against: Path | None = None,
    workers: int,
    max_pixels: int | None = None,
    classes_at: int | None = None,
) -> Report:
    """Read and decodes all that is at `path`.

    against: a pack made of it earlier; images that have another SHA-256 than then are found.
    max_pixels: larger pictures are bad, and are not decoded; None is the default, 64 million.
    classes_at: which folder in the path of an image is its class, as in `open_data`.
    Raises DataError only if there are no files at `path` that could be looked at, or no pack.
    """
    storage, report, notes = open_storage(path), Report(str(path)), list[str]()
    try:
        manifest = read_manifest(storage)
        if manifest is not None:
            report.findings += _changed_files(path, manifest)
        size = _SIZE if manifest is None else manifest["size"]
        if report.usable:
            layout = recognise(storage, Decoder(size, max_pixels, strict=True), classes_at, notes)
    except DataError as error:
        report.findings.append(Finding(str(error), "", fatal=True))
    if not report.usable:
        return report
    report.layout = layout.kind
    groups = {"train": layout.train} | ({} if layout.val is None else {"val": layout.val})
    report.splits = {
        name: _count(split, layout.titles) for name, split in groups.items() if any(split.values())
    }
    try:
        check_trainable(storage, layout.train)
    except DataError as error:
        report.findings.append(Finding(str(error), "", fatal=True))
    if layout.val is None and max(map(len, layout.train.values()), default=0) == 1:
        notes.append(NO_SECOND)
    elif layout.val is not None:
        matched(layout.val, list(layout.train), notes)
    report.findings += [Finding(note, "") for note in notes]
    report.findings += _odd_counts(groups)
    if manifest is None:
        hashes, bad, of_files = _look_at_all(layout, workers)
        report.findings += of_files
    else:
        entries = (entry for split in groups for entry in read_entries(storage, split, manifest))
        hashes, bad = {entry["name"]: entry["sha256"] for entry in entries}, set[str]()
    report.findings += _copies(groups, {n: h for n, h in hashes.items() if n not in bad})
    if against is not None:
        report.findings += _changed_images(hashes, against)
    return report


def _count(groups: Groups, titles: dict[str, str]) -> Count:
    sizes = [len(group) for group in groups.values()]
    labels = [label for label in groups if groups[label]]
    examples = [
        Example(label, titles.get(label, label), len(groups[label]), printable(groups[label][0]))
        for label in labels[:SHOWN_CLASSES] + labels[SHOWN_CLASSES:][-SHOWN_CLASSES:]
    ]
    median = statistics.median(sizes)
    return Count(sum(sizes), len(sizes), min(sizes), median, max(sizes), examples)


def _odd_counts(groups: dict[str, Groups]) -> list[Finding]:
    """Classes with less than a tenth, or more than ten times, of the median."""
    findings = []
    for split, classes in groups.items():
        sizes = {name: len(group) for name, group in classes.items() if group}
        median = statistics.median(sizes.values()) if sizes else 0
        odd = [
            f"{name} ({size})"
            for name, size in sizes.items()
            if size < median / 10 or size > median * 10
        ]
        if odd:
            findings.append(
                Finding(
                    f"Classes of {split} that are very small or large beside the median of "
                    f"{median:g} images: {listed(odd)}.",
                    "Add images to the small ones, or expect that they are seldom recognised.",
                )
            )
    return findings


def _look_at_all(layout: Layout, workers: int) -> tuple[dict[str, str], set[str], list[Finding]]:
    """The SHA-256 of each file that can be read, the images that are bad, and what is unusual."""
    source = layout.source
    assert isinstance(source, Files)

    def look(name: str) -> tuple[str, str | None, list[str]]:
        """SHA-256, why it cannot be decoded, oddities."""
        sha256 = ""
        try:
            data = source.fetch(name)
            sha256 = hashlib.sha256(data).hexdigest()
            source.decode(data, name)
        except DataError as error:
            return sha256, str(error), []
        return sha256, None, oddities(data, name)

    splits = (layout.train, layout.val or {})
    names = [name for groups in splits for _, name in reading_order(groups, source)]
    hashes: dict[str, str] = {}
    bad: dict[str, str] = {}
    odd: dict[str, list[str]] = defaultdict(list)
    with (
        closing(in_order(look, names, workers)) as looks,
        tqdm(looks, "check", len(names), unit=" images", leave=False, disable=None) as bar,
    ):
        for name, (sha256, error, strange) in zip(names, bar, strict=True):
            if sha256:
                hashes[name] = sha256
            if error:
                bad[name] = error
            for oddity in strange:
                odd[oddity].append(printable(name))
    findings = [
        Finding(f"{count_of(odd[what])}: {what}.", ODDITIES[what], odd[what])
        for what in ODDITIES
        if what in odd
    ]
    if bad:
        remedy = "Mend, fetch again or remove them."
        if not too_many(len(bad), len(names)):
            remedy = (
                f"{remedy} Or leave them out: tinyalex data pack SRC -o DIR --on-bad-image skip."
            )
        findings.insert(
            0, Finding(f"{count_of(bad)} cannot be decoded.", remedy, list(bad.values()), True)
        )
    return hashes, set(bad), findings


def _copies(groups: dict[str, Groups], hashes: dict[str, str]) -> list[Finding]:
    """Files that are the same to the byte, where that does harm."""
    places: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for split, classes in groups.items():
        for label, names in classes.items():
            for name in names:
                if name in hashes:
                    places[hashes[name]].append((split, label, name))
    leaked, ambiguous, repeated = list[str](), list[str](), list[str]()
    for same in places.values():
        first = same[0]
        for split, label, name in same[1:]:
            pair = f"{printable(first[2])} = {printable(name)}"
            if label != first[1]:
                ambiguous.append(pair)
            if split != first[0]:
                leaked.append(pair)
            elif label == first[1]:
                repeated.append(pair)
    held_out = "" if "val" in groups else " One may be trained on and the other held out."
    findings = [
        Finding(
            f"{count_of(leaked)} both in train and in val: the validation error is too good.",
            "Remove each from train.",
            leaked,
        ),
        Finding(
            f"{count_of(ambiguous)} in two classes.", "Keep each in the class it shows.", ambiguous
        ),
        Finding(f"{count_of(repeated)} twice in a class.{held_out}", "Keep one of each.", repeated),
    ]
    return [finding for finding in findings if finding.images]


def _changed_images(hashes: dict[str, str], against: Path) -> list[Finding]:
    """Compare the images with those that a pack was made of."""
    storage = open_storage(against)
    manifest = read_manifest(storage)
    if manifest is None:
        raise DataError(f"{against} is not a pack. Give a folder made by `tinyalex data pack`.")
    entries = [e for split in manifest["splits"] for e in read_entries(storage, split, manifest)]
    before = {entry["name"]: entry["sha256"] for entry in entries}
    changed = [printable(n) for n, sha256 in before.items() if hashes.get(n, sha256) != sha256]
    gone = [printable(name) for name in before if name not in hashes]
    new = [printable(name) for name in hashes if name not in before]
    again = f"Fetch them again; or, if this is meant, pack anew: {AGAIN}"
    findings = [
        Finding(f"{count_of(changed)} changed since {against} was made.", again, changed, True),
        Finding(f"{count_of(gone)} gone since {against} was made.", again, gone, True),
        Finding(f"{count_of(new)} new since {against} was made.", "Pack anew to use them.", new),
    ]
    same = Finding(f"All {count_of(hashes)} are as they were when {against} was made.", "")
    return [finding for finding in findings if finding.images] or [same]


def _changed_files(path: Path, manifest: dict[str, Any]) -> list[Finding]:
    """The files of a pack that are not what was packed."""
    changed = []
    for name, file in manifest["files"].items():
        try:
            check_size(path, name, manifest)
            if digest(path / name) != file["sha256"]:
                changed.append(f"{path / name} has other bytes than were packed.")
        except DataError as error:
            changed.append(str(error))
    if not changed:
        return []
    return [Finding("The pack is damaged.", AGAIN, changed, fatal=True)]
