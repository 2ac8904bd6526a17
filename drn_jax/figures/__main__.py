"""The papers' figures, computed from stage tables, published numbers, checkpoints and images.

    python -m drn_jax.figures --out figures                             tables and numbers alone
    python -m drn_jax.figures --out figures --classifiers RUN... [--images photos/]
                                                                        + class maps, levels, stems,
                                                                          gridding, effective fields
    python -m drn_jax.figures --out figures --segmenters RUN...         + segmentations, truth

RUN is the working directory of train.py, or of python -m drn_jax.convert. DIR/index.html shows all
figures of the command, DIR/NAME.svg is each of them.
"""

import argparse
import sys
import warnings

from drn_jax import cli
from drn_jax.errors import UserError

EXAMPLES = """\
examples:
  python -m drn_jax.figures --out figures --networks resnet_50 drn_a_50 drn_c_42
  python -m drn_jax.figures --out figures --classifiers runs/resnet_18 runs/drn_a_18 \\
      runs/drn_b_26 runs/drn_c_26 --images photos/ 'more/*.jpg' --count 4
  python -m drn_jax.figures --out figures --segmenters runs/drn_a_50 runs/drn_c_26
"""
NETWORKS = ("resnet_18", "drn_a_18", "drn_b_26", "drn_c_26", "drn_d_22")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m drn_jax.figures",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, help="folder; figures there already are replaced")
    parser.add_argument(
        "--networks",
        nargs="+",
        default=NETWORKS,
        metavar="NAME",
        help=f"in the figures of tables; default {' '.join(NETWORKS)}",
    )
    parser.add_argument(
        "--format", default="svg", choices=("svg", "png", "pdf"), help="of files; default svg"
    )
    parser.add_argument("--checkpoint", default="best", help="best (default), latest, or a step")
    parser.add_argument("--count", type=int, default=6, help="pictures; default 6")
    parser.add_argument(
        "--data_dir",
        default="",
        help="where the runs' data set lies, if no longer where it was: that of the segmenters, or "
        "where there are none of the classifiers",
    )
    of_classifiers = parser.add_argument_group("classification")
    of_classifiers.add_argument(
        "--classifiers",
        nargs="+",
        default=(),
        metavar="RUN",
        help="columns, in this order; the last is shown level by level",
    )
    of_classifiers.add_argument(
        "--images",
        nargs="+",
        default=(),
        help="files, folders, patterns; default: validation images of the first run",
    )
    of_classifiers.add_argument(
        "--size",
        type=int,
        default=224,
        help="shorter side to which images are resized before their middle is cut out as a square; "
        "default 224",
    )
    of_pixels = parser.add_argument_group("segmentation")
    of_pixels.add_argument(
        "--segmenters", nargs="+", default=(), metavar="RUN", help="columns, in this order"
    )
    arguments = parser.parse_args()
    # Of metadata that a camera wrote wrongly; pixels that are wrong raise.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        from drn_jax.figures import program  # JAX, matplotlib: --help need not wait for them.

        sys.exit(program.run(arguments))
    except UserError as error:
        cli.fail(str(error))
    except KeyboardInterrupt:
        print("stopped")
        sys.exit(130)


if __name__ == "__main__":
    main()
