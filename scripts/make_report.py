"""Make one self-contained page of an experiment: the verdict, plots, where numbers come from, and every question.

Example:
  uv run python scripts/make_report.py outputs/toy
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command_line import CommandParser, run
from domain_tokens.runs.names import REPORT
from domain_tokens.runs.terminal import readable_size, say

SIGN = '<meta name="generator" content="scripts/make_report.py">'


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_path("experiment", help="folder that the experiment was written to, such as outputs/toy")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these (default: the folder's own run, or all seeds)")
    parser.add_output_path(f"HTML file to write (default: {REPORT} in that folder)")
    return parser.parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # scipy and matplotlib take seconds to import, which --help and usage errors need not wait for
    from domain_tokens.comparison.report.collect import collect_experiment
    from domain_tokens.comparison.report.page import render_report
    from domain_tokens.runs.files import write_text
    from domain_tokens.runs.folders import output_file

    root = Path(args.experiment)
    experiment = collect_experiment(root, args.seeds)
    output = output_file(args.output_path or str(root / REPORT), SIGN, args.overwrite)
    write_text(output, render_report(experiment))
    say(f"wrote {output} ({readable_size(output.stat().st_size)}); open it in a browser")


if __name__ == "__main__":
    run(main)
