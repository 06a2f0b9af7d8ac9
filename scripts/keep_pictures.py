"""``keep_pictures.py FOLDER PICTURE...``: copy screenshots into a folder of the documentation.

With a palette, which needs a third of the space in the repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image


def main(folder: Path, pictures: list[Path]) -> None:
    """Write each of *pictures* into *folder* under its own name."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in pictures:
        with Image.open(path) as picture:
            small = picture.convert("RGB").quantize(dither=Image.Dither.NONE)
        small.save(folder / path.name, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
