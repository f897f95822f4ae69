"""Upload finished models to the Hugging Face Hub, each with a model card that holds what was measured.

All folders are checked before the first upload. Only what a user of a model needs goes up, and given again the
command uploads only what changed. The token is the one of `uv run hf auth login`, or HF_TOKEN.

Example:
  uv run python scripts/upload_to_hf.py --model-path outputs/sft_tulu_baseline \\
      --repo-name OWNER/domain-token-gpt2-sft-tulu-baseline
"""

import argparse
import re
from pathlib import Path

from domain_tokens.runs.command_line import CommandParser, run
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.terminal import aligned, readable_size, say

REGISTRY = Path(__file__).parent / "configs" / "models.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_path("--model-path", required=True, nargs="+", help="one or several model folders")
    parser.add_argument("--repo-name", required=True, nargs="+", help="as many repositories, OWNER/NAME, in that order")
    parser.add_argument("--private", action="store_true", help="new repositories are private; public ones are refused")
    parser.add_argument("--commit-message", default="Upload model", help='(default: "Upload model")')
    parser.add_argument("--license", default="unknown", help="for the model card, in the Hub's terms, such as mit")
    parser.add_argument("--dry-run", action="store_true", help="check and list what would go up; touches no network")
    args = parser.parse(argv)
    folders, repos = args.model_path, args.repo_name
    if len(folders) != len(repos):
        raise InputError(f"{len(folders)} --model-path and {len(repos)} --repo-name given; they go in pairs")
    names = [str(Path(folder).resolve()) for folder in folders] + [repo.casefold() for repo in repos]
    if repeated := [given for given, name in zip(folders + repos, names, strict=True) if names.count(name) > 1]:
        raise InputError(f"{repeated[0]} is given more than once; each model goes to a repository of its own")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", args.license):
        raise InputError(f"--license is {args.license!r}, expected one of the Hub's, such as mit or apache-2.0")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    say(f"Checking {', '.join(args.model_path)} ...")
    # torch and transformers take seconds to import, which --help and usage errors need not wait for
    from domain_tokens.hub.client import check_repo_id, open_hub, require_token
    from domain_tokens.hub.files import CARD_NAME, START_STAGES, size_of
    from domain_tokens.hub.model_card import render_model_card
    from domain_tokens.hub.upload import check_publishable, files_to_publish, upload_model
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.config_schema import RegistryConfig

    for repo_id in args.repo_name:
        check_repo_id(repo_id)
    registry = load_config(REGISTRY, RegistryConfig).config
    checked = [check_publishable(folder) for folder in args.model_path]
    others = {(model.condition, model.weights): repo for model, repo in zip(checked, args.repo_name, strict=True)}
    uploads = {}
    for checkpoint, path, repo_id in zip(checked, args.model_path, args.repo_name, strict=True):
        folder = Path(path)
        card = render_model_card(checkpoint, folder, repo_id, args.license, others, registry)
        uploads[repo_id] = folder, files_to_publish(checkpoint, folder, card)
        if named := [model for model in registry.models.values() if repo_id.endswith(f"/{model.repo}")]:
            stage = checkpoint.lineage[-1]["stage"]
            found = ("pretrained" if stage in START_STAGES else stage), checkpoint.condition
            if found != (named[0].stage, named[0].condition):
                say(f"note: {repo_id} is named as another model; {path} is {' '.join(found)}. Are the pairs in order?")
    if args.license == "unknown":
        say("note: the model cards will say license: unknown; --license names one")

    if args.dry_run:
        for repo_id, (folder, files) in uploads.items():
            say(f"\n{folder} would go to {repo_id}{', a private repository' if args.private else ''}:")
            cells = [("file", "size"), *((name, readable_size(size_of(file))) for name, file in files.items())]
            say(aligned([*cells, ("in all", readable_size(sum(map(size_of, files.values()))))], left=(0,)))
            say(f"\nIts model card:\n\n{files[CARD_NAME].decode()}")
        say("\nNothing was uploaded (--dry-run).")
        return

    api = open_hub(say=say)
    require_token()
    table = [("model", "repository", "files", "size", "result")]
    failures = []
    for number, (repo_id, (folder, files)) in enumerate(uploads.items(), start=1):
        say(f"[{number}/{len(uploads)}] {folder} to {repo_id} ...")
        try:
            changed = upload_model(api, repo_id, files, args.private, args.commit_message)
        except RunError as error:
            failures.append(str(error))
            table.append((str(folder), repo_id, f"0 of {len(files)}", readable_size(0), "failed"))
        else:
            size = readable_size(sum(size_of(files[name]) for name in changed if name in files))
            result = "uploaded" if changed else "unchanged"
            table.append((str(folder), repo_id, f"{len(changed)} of {len(files)}", size, result))
    say(f"\n{aligned(table, left=(0, 1, 4))}")
    if failures:
        raise RunError("; ".join(failures))


if __name__ == "__main__":
    run(main)
