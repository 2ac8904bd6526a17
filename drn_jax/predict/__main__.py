"""What a trained network says of images: masks, overlays, classes, heat maps, boxes.

    python -m drn_jax.predict --workdir RUN --out DIR photos/            a folder, at any depth
    python -m drn_jax.predict --workdir RUN --out DIR a.jpg b.png        single images
    python -m drn_jax.predict --workdir RUN --out DIR 'photos/*/2*.jpg'  a pattern

RUN is the working directory of train.py, or of python -m drn_jax.convert. Its task decides what
comes out, below DIR under the names of the images; for each kind one PNG of the image's size:

    segmentation      mask         NAME.png              8-bit grey, the class id of every pixel
                      overlay      NAME_overlay.png      the classes' colours over the image
                      probability  NAME_probability.png  8-bit grey, 255 times the probability of
                                                         that class (not unless asked for)
    classification    classes      predictions.csv       the likeliest classes of all images
                      map          NAME_map.png          where the likeliest class is seen
                      boxes        NAME_boxes.png        a box around that

and DIR/predictions.jsonl, a line an image: its size, its files, its classes and their pixels, its
box; or what is wrong with it. Images that can't be read are named at the end, and the status is 1.
"""

import argparse
import sys
import time
import warnings

from drn_jax import cli
from drn_jax.errors import UserError

EXAMPLES = """\
examples:
  python -m drn_jax.predict --workdir runs/camvid --out seen photos/
  python -m drn_jax.predict --workdir runs/camvid --out seen --scales published --flip \\
      --outputs mask,probability photos/
  python -m drn_jax.predict --workdir runs/quickstart --out seen --outputs map,boxes \\
      --threshold 0.3 dog.jpg
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m drn_jax.predict",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="+", help="files, folders, patterns")
    parser.add_argument("--workdir", required=True, help="of a run, or of converted weights")
    parser.add_argument(
        "--out", required=True, help="folder of the results; those there already are replaced"
    )
    parser.add_argument("--checkpoint", default="best", help="best (default), latest, or a step")
    parser.add_argument(
        "--data_dir", default="", help="the data set, where a checkpoint does not tell its classes"
    )
    parser.add_argument(
        "--memory",
        type=float,
        metavar="GB",
        help="for the network's activations, about: large images are computed in as large pieces",
    )
    parser.add_argument("--outputs", default="", help="kinds, with commas; default: see above")
    of_pixels = parser.add_argument_group("segmentation")
    of_pixels.add_argument("--scales", help="of the image, with commas, or published; default 1")
    of_pixels.add_argument(
        "--flip", action="store_true", default=None, help="answer for the mirrored image, too"
    )
    of_pixels.add_argument(
        "--combine",
        choices=("log_probabilities", "probabilities"),
        metavar="RULE",
        help="what is averaged over scales and mirror images: log_probabilities (default) or "
        "probabilities",
    )
    of_pixels.add_argument(
        "--ids",
        choices=("own", "set"),
        metavar="IDS",
        help="of masks: own (default), or set: as in the data set's masks (Cityscapes: labelIds)",
    )
    of_images = parser.add_argument_group("classification")
    of_images.add_argument("--top", type=int, help="classes an image; default 5")
    of_images.add_argument(
        "--threshold", type=float, help="probability that cells of a box exceed; default none"
    )
    arguments = parser.parse_intermixed_args()
    # Of metadata that a camera wrote wrongly; pixels that are wrong raise.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        start = time.monotonic()
        from drn_jax.predict import program  # JAX: a second that --help need not wait for.

        sys.exit(program.run(arguments, start))
    except UserError as error:
        cli.fail(str(error))
    except KeyboardInterrupt:
        print("stopped")
        sys.exit(130)


if __name__ == "__main__":
    main()
