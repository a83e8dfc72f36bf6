#!/usr/bin/env bash
# A data set made of a folder of pictures and written by to_parquet holds no pictures.
#
# Expected: the Parquet file can be copied to another machine and read there, as those of the Hub can,
# which have the bytes of each picture; save_to_disk of the same data set writes the bytes too.
# Happens: the bytes are null and the path is an absolute one of the machine that wrote it, without a
# warning. The file opens elsewhere, counts its rows, and fails at the first picture. push_to_hub puts
# the bytes in unless embed_external_files=False is given; to_parquet has no such argument.
# Source: Dataset.to_parquet and Dataset.push_to_hub in datasets/arrow_dataset.py, and the run below.
# Hurts: who packs a folder of photos into Parquet to carry it to a cluster, and removes the folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
venv/bin/python - <<'PYTHON'
from pathlib import Path

import datasets
import pyarrow.parquet
from PIL import Image

print("datasets", datasets.__version__, "pyarrow", pyarrow.__version__)
for name, grey in (("day", 200), ("night", 20)):
    Path("photos", name).mkdir(parents=True)
    Image.new("L", (8, 8), grey).convert("RGB").save(f"photos/{name}/0.png")
photos = datasets.load_dataset("imagefolder", data_dir="photos", split="train")

photos.to_parquet("photos.parquet")
rows = pyarrow.parquet.read_table("photos.parquet").column("image").to_pylist()
for row in rows:
    print("to_parquet   bytes", row["bytes"], " absolute path", Path(row["path"]).is_absolute())
assert all(row["bytes"] is None and Path(row["path"]).is_absolute() for row in rows), "bytes are kept"

photos.save_to_disk("saved")
kept = datasets.load_from_disk("saved").with_format("arrow")[0]["image"].to_pylist()[0]
print("save_to_disk bytes", len(kept["bytes"]), " path", kept["path"])
assert kept["bytes"].startswith(b"\x89PNG")

Path("photos").rename("moved")
again = datasets.load_dataset("parquet", data_files="photos.parquet", split="train")
print("rows after the folder has moved:", len(again))
try:
    again[0]
except FileNotFoundError:
    print("the first picture: FileNotFoundError")
else:
    raise SystemExit("the picture is in the file now")
PYTHON
