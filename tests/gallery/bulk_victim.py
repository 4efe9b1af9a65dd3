"""Enrolls a folder in shards, slowly, and writes down each photo that it describes.

python bulk_victim.py FOLDER GALLERY JOURNAL SHARD SECONDS
"""

from __future__ import annotations

import os
import sys
import time

from fieldmark import backbones
from fieldmark.gallery import Embedder, Gallery
from fieldmark.gallery import bulk as bulk_module
from fieldmark.gallery.bulk import enroll_in_shards


class Telling(Embedder):
    """Writes the names of photos down, on the disk, once they are described."""

    def embed(self, images, *arguments, **options):
        found = super().embed(images, *arguments, **options)
        os.write(journal, "".join(f"{name}\n" for name in images.names).encode())
        time.sleep(float(sys.argv[5]))
        return found


if __name__ == "__main__":
    journal = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    bulk_module.AT_ONCE = 2
    embedder = Telling(backbones.create("pixels", size=8), size=16)
    gallery = Gallery.open(sys.argv[2], create=True)
    done = enroll_in_shards(gallery, sys.argv[1], embedder=embedder, shard=int(sys.argv[4]), progress=False)
    print(done.added, done.unchanged)
