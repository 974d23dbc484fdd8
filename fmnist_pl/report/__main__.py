"""What a sweep says: `summary.csv`, `summary.md` and `report.html`, made from its folders alone.

    python -m fmnist_pl.report runs/six_models              # while it runs, too
    python -m fmnist_pl.report runs/six_models runs/more    # one report of several sweeps
    python -m fmnist_pl.report runs/six_models --margin 0.5 # less counts as no difference

The files go into the first folder. `report.html` is one file that needs no network: results beside
the published ones, curves, confusions, mistakes, and which of the study's conclusions hold.
"""

import argparse
from pathlib import Path

from fmnist_pl.files import REPORT
from fmnist_pl.options.command import check_temporary
from fmnist_pl.options.messages import UserError, fail, prepare_terminal, stop_printing


def main() -> None:
    prepare_terminal()
    parser = argparse.ArgumentParser(
        prog="python -m fmnist_pl.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", metavar="SWEEP", nargs="+", type=Path, help="folder of a sweep")
    parser.add_argument(
        "--margin",
        type=points,
        help="percentage points; a smaller difference of accuracies counts as none "
        "(default 0.2, or as a sweep with hydra/sweeper=until_decided has planned)",
    )
    given = parser.parse_args()

    try:
        check_temporary()
        from fmnist_pl.report.summary import write_report

        summary = write_report(given.folders, given.folders[0], given.margin and given.margin / 100)
    except UserError as error:
        fail(error)
    try:
        print(f"{summary}\n\nreport  {summary.out / REPORT}", flush=True)
    except BrokenPipeError:
        stop_printing()


def points(text: str) -> float:
    """A margin as it is typed."""
    if not 0 < float(text) < 100:  # what is no number, argparse says itself
        raise argparse.ArgumentTypeError(f"{text}: above 0 and below 100 percentage points.")
    return float(text)


if __name__ == "__main__":
    main()
