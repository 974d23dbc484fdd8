"""What a sweep says: `summary.csv`, `summary.md` and `report.html`, made from its folders alone.

    python -m fmnist_pl.report runs/six_models              # while it runs, too
    python -m fmnist_pl.report runs/six_models runs/more    # one report of several sweeps

The files go into the first folder. `report.html` is one file that needs no network: results beside
the published ones, curves, confusions, mistakes, and which of the study's conclusions hold.
"""

import argparse
from pathlib import Path

from fmnist_pl.options.messages import UserError, fail, prepare_terminal, stop_printing


def main() -> None:
    prepare_terminal()
    parser = argparse.ArgumentParser(
        prog="python -m fmnist_pl.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", metavar="SWEEP", nargs="+", type=Path, help="folder of a sweep")
    folders = parser.parse_args().folders

    from fmnist_pl.report.summary import write_report

    try:
        summary = write_report(folders, folders[0])
    except UserError as error:
        fail(error)
    try:
        print(f"{summary}\n\nreport  {summary.out / 'report.html'}", flush=True)
    except BrokenPipeError:
        stop_printing()


if __name__ == "__main__":
    main()
