"""What the README says is so."""

import re
from pathlib import Path

from bench.resolve import load_grid

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text()


def test_its_results_are_those_of_the_shipped_reports() -> None:
    overview = (REPO / "reports/demo/systems/overview.md").read_text()
    assert overview.strip() in README


def test_its_commands_are_targets() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", README)) <= targets


def test_its_ablation_resolves(tmp_path: Path) -> None:
    """The lines of its diff, put into params.yaml."""
    diff = re.search(r"```diff\n(.*?)```", README, re.DOTALL)
    assert diff
    lines = [line[1:] for line in diff[1].splitlines()]
    added = [line[1:] for line in diff[1].splitlines() if line.startswith("+")]
    params = (REPO / "params.yaml").read_text()
    context = "\n".join(line for line in lines if line not in added)
    assert context in params
    file = tmp_path / "params.yaml"
    file.write_text(params.replace(context, "\n".join(lines)))
    assert set(load_grid(file).ablations) - set(load_grid(REPO / "params.yaml").ablations) == {"sigma_6"}


def test_its_profiles_are_those_of_params_yaml() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \| .* \|$", README, re.MULTILINE)
    assert tuple(rows) == load_grid(REPO / "params.yaml").profiles


def test_its_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (REPO / target).exists(), target
