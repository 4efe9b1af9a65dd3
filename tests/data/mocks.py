"""Small copies of the published folder structures: all classes, one or two images of a few pixels each."""

import io
import pickle

import numpy as np
from PIL import Image
from scipy.io import savemat

from fieldmark.data.splits import class_split

_buffer = io.BytesIO()
Image.fromarray(np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)).save(_buffer, "png")
PNG = _buffer.getvalue()  # 10 wide, 12 high; Pillow goes by content, so it also stands for a .jpg


def put(path, data=PNG):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def class_folders(root, names, images=1, extension="jpg"):
    for name in names:
        for i in range(images):
            put(root / name / f"{i}.{extension}")
    return root


def lines(rows):
    return "".join(" ".join(str(cell) for cell in row) + "\n" for row in rows)


def cub(root, boxes=True):
    root = root / "CUB_200_2011"
    images, labels, split, box = [], [], [], []
    for c, name in enumerate(class_split("cub-feat", "all"), 1):
        for k in range(2):
            number = 2 * c - 1 + k
            images.append((number, f"{name}/{name[4:]}_{k:04d}_{number}.jpg"))
            labels.append((number, c))
            split.append((number, 1 - k))
            box.append((number, 2.0, 3.0, 5.0, 6.0))
            put(root / "images" / images[-1][1])
    put(root / "images.txt", lines(images))
    put(root / "image_class_labels.txt", lines(labels))
    put(root / "train_test_split.txt", lines(split))
    put(root / "classes.txt", lines((i, n) for i, n in enumerate(class_split("cub-feat", "all"), 1)))
    if boxes:
        put(root / "bounding_boxes.txt", lines(box))
    return root.parent


def nabirds(root):
    images, labels, split = [], [], []
    for c in range(555):
        for k in range(2):
            number = f"{c:04d}-{k}-uuid"
            images.append((number, f"{c + 100:04d}/{number}.jpg"))
            labels.append((number, c + 100))
            split.append((number, 1 - k))
            put(root / "images" / images[-1][1])
    put(root / "images.txt", lines(images))
    put(root / "image_class_labels.txt", lines(labels))
    put(root / "train_test_split.txt", lines(split))
    put(root / "classes.txt", lines((c, f"Bird {c} (Adult male)") for c in range(1011)))
    return root


def cars(root):
    """The devkit beside cars_train and cars_test."""
    titles = [f"Make Model-{c:03d} 20{c % 13:02d}" for c in range(196)]
    savemat_to(root / "devkit" / "cars_meta.mat", {"class_names": np.array(titles, object)})
    for part, file in (("train", "cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        kinds = [(n, "i4") for n in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class")]
        rows = np.zeros((1, 196), [*kinds, ("fname", "O")])
        for c in range(196):
            rows[0, c] = (1, 1, 5, 5, c + 1, f"{c + 1:05d}.jpg")
            put(root / f"cars_{part}" / f"{c + 1:05d}.jpg")
        savemat_to(root / "devkit" / file, {"annotations": rows})
    return root


def cars_merged(root):
    """The other form: cars_annos.mat and car_ims."""
    titles = [f"Make Model-{c:03d} 20{c % 13:02d}" for c in range(196)]
    rows = np.zeros((1, 392), [("relative_im_path", "O"), ("class", "i4"), ("test", "i4")])
    for i in range(392):
        rows[0, i] = (f"car_ims/{i + 1:06d}.jpg", i // 2 + 1, i % 2)
        put(root / "car_ims" / f"{i + 1:06d}.jpg")
    savemat_to(root / "cars_annos.mat", {"annotations": rows, "class_names": np.array(titles, object)})
    return root


def dogs(root):
    names = class_split("stanford_dogs-dn4", "all")
    for part, k in (("train", 0), ("test", 1)):
        listed = [f"{name}/{name[:9]}_{k}.jpg" for name in names]
        for path in listed:
            put(root / "Images" / path)
        savemat_to(root / f"{part}_list.mat", {"file_list": np.array(listed, object)[:, None]})
    return root


def aircraft(root):
    root = root / "data"
    number = 0
    parts = {"train": [], "val": [], "test": []}
    for c in range(100):
        for rows in parts.values():
            number += 1
            rows.append((f"{number:07d}", f"F/A-{c} Super" if c == 5 else f"7{c:02d}-200"))
            put(root / "images" / f"{number:07d}.jpg")
    for part, rows in parts.items():
        put(root / f"images_variant_{part}.txt", lines(rows))
    put(root / "images_variant_trainval.txt", lines(parts["train"] + parts["val"]))
    return root.parent


def grocery(root):
    """The real class names, against their alphabet; one image a class in each official part."""
    titles = class_split("grocery-fieldmark", "all")[::-1]
    put(root / "classes.csv", "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int)\n"
        + "".join(f"{title},{c},Fruit,0\n" for c, title in enumerate(titles)))  # fmt: skip
    for part in ("train", "val", "test"):
        rows = [(f"{part}/Fruit/{title}/{c}.jpg", c) for c, title in enumerate(titles)]
        for path, _ in rows:
            put(root / path)
        put(root / f"{part}.txt", "".join(f"{path}, {c}, 0\n" for path, c in rows))
    return root


def cifar_pickles(root):
    """torchvision's folder; two images a class in each part, class c filled with colour c."""
    names = class_split("cifar_fs", "all")
    folder = root / "cifar-100-python"
    put(folder / "meta", pickle.dumps({b"fine_label_names": [name.encode() for name in names]}))
    for part, shift in (("train", 0), ("test", 100)):
        labels = [c for c in range(100) for _ in range(2)]
        pixels = np.stack([np.repeat(np.array([c + shift, c, 7], np.uint8), 1024) for c in labels])
        put(folder / part, pickle.dumps({b"data": pixels, b"fine_labels": labels}))
    return root


def omniglot(root):
    for part, alphabets in {
        "images_background": ("Greek", "Latin"),
        "images_evaluation": ("Tibetan",),
        "images_background_small1": ("Greek", "Korean"),
        "images_background_small2": ("Latin",),
    }.items():
        for alphabet in alphabets:
            for c in (1, 2):
                for k in (1, 2):
                    put(root / part / alphabet / f"character{c:02d}" / f"{alphabet}{c}_{k:02d}.png")
    return root


def omniglot_runs(root):
    for run in range(1, 21):
        rows = []
        for c in range(1, 21):
            item = (c * 7) % 20 + 1
            rows.append((f"run{run:02d}/test/item{item:02d}.png", f"run{run:02d}/training/class{c:02d}.png"))
            put(root / rows[-1][0])
            put(root / rows[-1][1])
        put(root / f"run{run:02d}" / "class_labels.txt", lines(rows))
    return root


def savemat_to(path, facts):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, facts)


MOCKS = {
    "folder": lambda root: class_folders(root, ["cat", "dog"], 3),
    "mini_imagenet": lambda root: class_folders(root, class_split("mini_imagenet", "all")),
    "tiered_imagenet": lambda root: class_folders(root, class_split("tiered_imagenet", "all")),
    "cifar_fs": lambda root: class_folders(root, class_split("cifar_fs", "all")),
    "fc100": lambda root: class_folders(root, class_split("fc100", "all")),
    "places": lambda root: class_folders(root, [f"place-{i:03d}" for i in range(365)]),
    "plantae": lambda root: class_folders(root, [f"plant-{i:03d}" for i in range(200)]),
    "omniglot": omniglot,
    "omniglot_runs": omniglot_runs,
    "grocery": grocery,
    "aircraft": aircraft,
    "cub": cub,
    "nabirds": nabirds,
    "stanford_cars": cars,
    "stanford_dogs": dogs,
}


def mock(name, root):
    """The folder of a registered data set; variants ("cub-feat-cropped") share that of the first part."""
    if name == "glyphs":
        return None
    return MOCKS[name if name in MOCKS else name.split("-")[0]](root)
