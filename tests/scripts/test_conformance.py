"""scripts/conformance on small trees made for the purpose."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "conformance"
LIST = "# A list\n\n1. first thing\n2. second thing\n\n## More\n\n3. third thing\n"


def conformance(tree: Path, tests: str, checklist: str = LIST) -> tuple[int, str]:
    lists = tree / "docs/reference/checklists"
    lists.mkdir(parents=True)
    (lists / "demo.md").write_text(checklist)
    (tree / "tests/deep").mkdir(parents=True)
    (tree / "tests/deep/test_demo.py").write_text("import pytest\n" + tests)
    command = [sys.executable, "-I", str(SCRIPT), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout + done.stderr


COVERED = {
    "numbers": '@pytest.mark.checklist("demo", 1, 2, 3)\ndef test_a(): ...\n',
    "module": 'pytestmark = [pytest.mark.system, pytest.mark.checklist("demo", 1, 2, 3)]\ndef test_a(): ...\n',
    "class-and-method": (
        '@pytest.mark.checklist("demo", 1)\nclass TestA:\n'
        '    pytestmark = pytest.mark.checklist("demo", 2)\n'
        '    @pytest.mark.checklist("demo", 3)\n    def test_a(self): ...\n'
    ),
    "parameter": (
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.checklist("demo", 1, 2))])\n'
        '@pytest.mark.checklist("demo", 3)\nasync def test_a(x): ...\n'
    ),
    "table": (
        'TABLE = [pytest.param(1, marks=[pytest.mark.checklist("demo", 1, 2, 3)])]\n'
        '@pytest.mark.parametrize("x", TABLE)\ndef test_a(x): ...\n'
    ),
}


@pytest.mark.parametrize("tests", COVERED.values(), ids=COVERED.keys())
def test_every_line_covered(tmp_path: Path, tests: str) -> None:
    assert conformance(tmp_path, tests) == (0, "demo 3/3\n")


def test_a_missing_line_is_named_and_fails(tmp_path: Path) -> None:
    status, output = conformance(tmp_path, '@pytest.mark.checklist("demo", 1, 3)\ndef test_a(): ...\n')
    assert (status, output) == (1, "demo 2/3\n  missing demo 2. second thing\n")


UNCOVERED = {
    "comment": '# pytest.mark.checklist("demo", 1, 2, 3)\ndef test_a(): ...\n',
    "skip": '@pytest.mark.skip\n@pytest.mark.checklist("demo", 1, 2, 3)\ndef test_a(): ...\n',
    "xfail-parameter": (
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.xfail)])\n'
        '@pytest.mark.checklist("demo", 1, 2, 3)\ndef test_a(x): ...\n'
    ),
    "skipped-class": (
        '@pytest.mark.skipif(True, reason="")\nclass TestA:\n'
        '    @pytest.mark.checklist("demo", 1, 2, 3)\n    def test_a(self): ...\n'
    ),
    "skipped-module": (
        'pytestmark = pytest.mark.skip("why")\n@pytest.mark.checklist("demo", 1, 2, 3)\ndef test_a(): ...\n'
    ),
    "no-test-in-module": 'pytestmark = pytest.mark.checklist("demo", 1, 2, 3)\ndef helper(): ...\n',
}


@pytest.mark.parametrize("tests", UNCOVERED.values(), ids=UNCOVERED.keys())
def test_what_does_not_run_covers_nothing(tmp_path: Path, tests: str) -> None:
    status, output = conformance(tmp_path, tests)
    assert status == 1
    assert output.startswith("demo 0/3\n")


WRONG = {
    "unknown-number": ('@pytest.mark.checklist("demo", 4)\ndef test_a(): ...\n', "there is no line 4 in a list 'demo'"),
    "unknown-list": ('@pytest.mark.checklist("other", 1)\ndef test_a(): ...\n', "there is no line 1 in a list 'other'"),
    "computed": ('@pytest.mark.checklist("demo", *range(9))\ndef test_a(): ...\n', "not understood"),
    "no-number": ('@pytest.mark.checklist("demo")\ndef test_a(): ...\n', "not understood"),
    "text": ('@pytest.mark.checklist("demo", "1")\ndef test_a(): ...\n', "not understood"),
    "bare": ("@pytest.mark.checklist(True, True)\ndef test_a(): ...\n", "not understood"),
    "helper": ('@pytest.mark.checklist("demo", 1)\ndef chck_a(): ...\n', "on something that is no test"),
    "method": (
        'class TestA:\n    def test_a(self): ...\n    @pytest.mark.checklist("demo", 1)\n    def tset_b(self): ...\n',
        "on something that is no test",
    ),
}


@pytest.mark.parametrize(("tests", "complaint"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_marker_is_named_and_fails(tmp_path: Path, tests: str, complaint: str) -> None:
    good = '\n@pytest.mark.checklist("demo", 1, 2, 3)\ndef test_good(): ...\n'
    status, output = conformance(tmp_path, tests + good)
    assert status == 1
    assert complaint in output
    assert "tests/deep/test_demo.py:" in output
    assert "demo 3/3" in output


@pytest.mark.parametrize(
    "checklist",
    [
        pytest.param("1. a\n3. b\n", id="gap"),
        pytest.param("1. a\n1. b\n", id="twice"),
        pytest.param("# title\n", id="empty"),
    ],
)
def test_a_badly_numbered_list_is_an_error(tmp_path: Path, checklist: str) -> None:
    status, output = conformance(tmp_path, "", checklist)
    assert status == 2
    assert "demo.md: the lines must be numbered" in output


def test_a_tree_without_lists_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, timeout=20, check=False)
    assert done.returncode == 2


def test_without_argument_it_reads_the_tree_it_stands_in(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    copy = tmp_path / "scripts" / "conformance"
    copy.write_bytes(SCRIPT.read_bytes())
    (tmp_path / "docs/reference/checklists").mkdir(parents=True)
    (tmp_path / "docs/reference/checklists/demo.md").write_text("1. one\n")
    (tmp_path / "tests").mkdir()
    command = [sys.executable, "-I", str(copy)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (1, "demo 0/1\n  missing demo 1. one\n")
