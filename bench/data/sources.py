"""Where official files are, and where they go. Files that their authors keep without a stable direct URL are left out:

the detector's boxes (`COCO_val2017_detections_AP_H_56_person.json`), HRNet's own and ViTPose's own checkpoints.
"""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

COCO = "http://images.cocodataset.org"  # as COCO links it, plain
MMPOSE = "https://download.openmmlab.com/mmpose/v1/body_2d_keypoint/topdown_heatmap/coco"
TRANSPOSE = "https://github.com/yangsenius/TransPose/releases/download/Hub"
WEIGHTS_DIR = Path("models/published")


class Source(NamedTuple):
    url: str
    folder: str | None = None  # all that is in an archive, unpacked below the root; None: a file of `WEIGHTS_DIR`

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]

    def at(self, mirror: str | None) -> str:
        """Its URL on a server that has the same paths, such as MIRROR/zips/val2017.zip."""
        return self.url if mirror is None else mirror.rstrip("/") + urlsplit(self.url).path


COCO_PARTS = {
    "train2017": Source(f"{COCO}/zips/train2017.zip", "train2017"),
    "val2017": Source(f"{COCO}/zips/val2017.zip", "val2017"),
    "annotations": Source(f"{COCO}/annotations/annotations_trainval2017.zip", "annotations"),
}

WEIGHTS = {
    name: Source(f"{base}/{file}.pth")
    for base, files in {
        TRANSPOSE: {
            "transpose_r_a3": "tp_r_256x192_enc3_d256_h1024_mh8",
            "transpose_r_a4": "tp_r_256x192_enc4_d256_h1024_mh8",
            "transpose_h_s": "tp_h_32_256x192_enc4_d64_h128_mh1",
            "transpose_h_a4": "tp_h_48_256x192_enc4_d96_h192_mh1",
            "transpose_h_a6": "tp_h_48_256x192_enc6_d96_h192_mh1",
        },
        MMPOSE: {
            "mmpose_hrnet_w32": "td-hm_hrnet-w32_8xb64-210e_coco-256x192-81c58e40_20220909",
            "mmpose_hrnet_w48": "td-hm_hrnet-w48_8xb32-210e_coco-256x192-0e67c616_20220913",
            "mmpose_vitpose_s_classic": "td-hm_ViTPose-small_8xb64-210e_coco-256x192-62d7a712_20230314",
            "mmpose_vitpose_s_simple": "td-hm_ViTPose-small-simple_8xb64-210e_coco-256x192-4c101a76_20230314",
            "mmpose_vitpose_b_classic": "td-hm_ViTPose-base_8xb64-210e_coco-256x192-216eae50_20230314",
            "mmpose_vitpose_b_simple": "td-hm_ViTPose-base-simple_8xb64-210e_coco-256x192-0b8234ea_20230407",
            "mmpose_vitpose_l_classic": "td-hm_ViTPose-large_8xb64-210e_coco-256x192-53609f55_20230314",
            "mmpose_vitpose_l_simple": "td-hm_ViTPose-large-simple_8xb64-210e_coco-256x192-3a7ee9e1_20230314",
            "mmpose_vitpose_h_classic": "td-hm_ViTPose-huge_8xb64-210e_coco-256x192-e32adcd4_20230314",
            "mmpose_vitpose_h_simple": "td-hm_ViTPose-huge-simple_8xb64-210e_coco-256x192-ffd48c05_20230314",
        },
    }.items()
    for name, file in files.items()
}
"""Checkpoints: TransPose's own, and mmpose's, which were trained anew and reach other AP than the authors'."""

SOURCES = COCO_PARTS | WEIGHTS
