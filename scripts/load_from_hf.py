"""Fetch the experiment's models from the Hugging Face Hub into outputs/, each checked before it gets its name.

The known models stand in scripts/configs/models.yaml. For private ones the token is the one of `uv run hf auth login`,
or HF_TOKEN.

Example:
  uv run python scripts/load_from_hf.py --list
  uv run python scripts/load_from_hf.py --models hf_baseline_10b sft_tulu
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command_line import CommandParser, run
from domain_tokens.runs.errors import InputError, RunError, nearest
from domain_tokens.runs.terminal import aligned, readable_size, say

REGISTRY = Path(__file__).parent / "configs" / "models.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="show every known model, here and on the Hub")
    what.add_argument("--all", action="store_true", help="fetch every known model that is on the Hub")
    what.add_argument(
        "--models", nargs="+", metavar="NAME",
        help="fetch these: names, or groups (pretrained, sft_tulu, sft_gsm8k, baseline, mul_tokens)",
    )  # fmt: skip
    parser.add_path("--output-root", default="outputs", help="each model's folder lies below it (default: outputs)")
    parser.add_argument("--force", action="store_true", help="fetch again and replace the folder that is here")
    parser.add_argument("--revision", help="a branch, tag or commit (default: the newest)")
    parser.add_argument("--include-checkpoints", action="store_true", help="checkpoint-* folders too, if there are any")
    parser.add_path("--registry", default=str(REGISTRY), help="YAML (default: scripts/configs/models.yaml)")
    parser.add_argument("--namespace", metavar="OWNER", help="the repositories' owner, in place of the registry's")
    return parser.parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # the Hub's client takes a second to import, which --help and usage errors need not wait for
    from domain_tokens.hub.client import LOG_IN, HubUnreachable, open_hub
    from domain_tokens.hub.download import download_model, find_remote_model
    from domain_tokens.hub.files import is_here
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.config_schema import RegistryConfig

    registry = load_config(args.registry, RegistryConfig, flags={"owner": args.namespace}).config
    names = list(registry.models) if args.list or args.all else chosen(registry, args.models)
    root = Path(args.output_root)
    api = open_hub(say=say)
    if args.list:
        show(api, registry, root, args.revision)
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output-root {root} cannot be made ({error.strerror}); expected a folder") from None

    what = f"all {len(names)} known models" if args.all else ", ".join(names)
    say(f"Fetching {what} from {registry.owner} on the Hub to {root}/")
    table = [("model", "repository", "commit", "size", "result")]
    failures, absent = [], []
    not_there = "not on the Hub, or private" if args.revision is None else f"not on the Hub at {args.revision}"
    for name in names:
        folder, repo, repo_id = root / name, registry.models[name].repo, registry.repo_id(name)
        try:
            if is_here(folder) and not args.force:
                table.append((name, repo, "", "", "already here"))
                continue
            if folder.exists() and not args.force and (not folder.is_dir() or any(folder.iterdir())):
                raise RunError(f"{folder} is there and holds no finished model; --force replaces it")
            remote = find_remote_model(api, repo_id, args.revision, args.include_checkpoints)
            if remote is None:
                absent.append(repo_id)
                table.append((name, repo, "", "", not_there))
                continue
            say(f"{repo_id}: {readable_size(remote.size)} ...")
            condition = download_model(remote, folder, registry.models[name].condition)
        except RunError as error:
            failures.append(str(error))
            table.append((name, repo, "", "", "failed"))
            if isinstance(error, HubUnreachable):
                break
        else:
            result = "fetched and checked"
            if condition != registry.models[name].condition:
                result += f"; it says it is a {condition} model"
            table.append((name, repo, remote.commit[:10], readable_size(remote.size), result))
    say(f"\n{aligned(table, left=(0, 1, 2, 4))}")
    if any(row[-1] == "already here" for row in table):
        say("What is already here was left as it is; --force fetches it again.")
    if absent and (args.models or len(absent) == len(names)):
        failures.append(f"{', '.join(absent)}: {not_there}; check the owner and the revision, or {LOG_IN}")
    if failures:
        raise RunError("; ".join(failures))


def chosen(registry, wanted: list[str]) -> list[str]:
    """The models of these names and groups, each once, in the registry's order."""
    groups = {name: {name, model.stage, model.condition} for name, model in registry.models.items()}
    known = [*registry.models, *dict.fromkeys(group for members in groups.values() for group in sorted(members))]
    for name in wanted:
        if name not in known:
            raise InputError(
                f"{name!r} is no known model{nearest(name, known)}; known are {', '.join(dict.fromkeys(known))}"
            )
    return [name for name, members in groups.items() if members & set(wanted)]


def show(api, registry, root: Path, revision: str | None) -> None:
    """One row a model. Without the Hub, what is here is still shown."""
    from domain_tokens.hub.client import HubUnreachable
    from domain_tokens.hub.download import find_remote_model
    from domain_tokens.hub.files import PUBLISHED_FILES, is_here

    cells = [("folder", "here", "repository", "on the Hub", "size")]
    failure = None
    for name in registry.models:
        folder, repo_id = root / name, registry.repo_id(name)
        here, there, size = is_here(folder), "unknown", 0
        if not isinstance(failure, HubUnreachable):
            try:
                remote = find_remote_model(api, repo_id, revision)
            except RunError as error:
                failure = error
            else:
                there, size = ("no", 0) if remote is None else ("yes", remote.size)
        if here and not size:
            size = sum(path.stat().st_size for path in folder.iterdir() if path.name in PUBLISHED_FILES)
        cells.append((str(folder), "yes" if here else "no", repo_id, there, readable_size(size) if size else ""))
    say(aligned(cells, left=range(4)))
    if failure is not None:
        raise failure


if __name__ == "__main__":
    run(main)
