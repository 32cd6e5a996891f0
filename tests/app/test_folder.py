from pathlib import Path

import pytest

from m2gate import ConfigError, TestClient
from m2gate.app.folder import load_folder

APP = '''"""{title}

{text}

More.
"""
from m2gate import App
app = App()

@app.get("/")
def index(request):
    return "{title}"
'''


def write(folder: Path, name: str, title: str = "A title.", text: str = "Some text.") -> Path:
    path = folder / name
    path.write_text(APP.format(title=title, text=text))
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_folder(folder)
    return str(error.value)


def test_each_file_under_its_name_and_an_index_of_all(tmp_path: Path) -> None:
    write(tmp_path, "folder_b.py", "B & co.", "With ``code``\nand <tags>.")
    write(tmp_path, "folder_a.py")
    write(tmp_path, "_folder_helper.py")
    (tmp_path / "notes.txt").write_text("no Python")
    with TestClient(load_folder(tmp_path)) as client:
        assert client.get("/folder_a/").text == "A title."
        assert client.get("/folder_b/").text == "B & co."
        assert client.get("/folder_a").headers["Location"] == "/folder_a/"
        assert client.get("/_folder_helper/").status == 404
        page = client.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.text.index('href="folder_a/"') < page.text.index('href="folder_b/"')
    assert "<strong>B &amp; co</strong><span>With code and &lt;tags&gt;.</span><code>folder_b.py</code>" in page.text
    assert "More." not in page.text


def test_a_file_without_docstring_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "folder_bare.py").write_text("from m2gate import App\napp = App()\n")
    with TestClient(load_folder(tmp_path)) as client:
        assert "<strong>folder_bare.py</strong>" in client.get("/").text


def test_files_may_import_each_other(tmp_path: Path) -> None:
    (tmp_path / "_folder_shared.py").write_text("WORD = 'shared'\n")
    path = write(tmp_path, "folder_user.py")
    path.write_text(path.read_text().replace("from m2gate", "from _folder_shared import WORD\nfrom m2gate", 1))
    load_folder(tmp_path)


def test_json_sockets_are_those_of_all_files(tmp_path: Path) -> None:
    path = write(tmp_path, "folder_socket.py")
    path.write_text(f"{path.read_text()}\n@app.json_socket('@folder')\ndef answer(request):\n    return request.json\n")
    app = load_folder(tmp_path)
    assert list(app.json_sockets) == ["@folder"]
    with TestClient(app) as client:
        assert client.json_socket("@folder", {"a": 1}) == {"a": 1}


def test_empty_folder(tmp_path: Path) -> None:
    write(tmp_path, "_folder_helper.py")
    assert "no handler file" in refusal(tmp_path)


def test_file_without_app(tmp_path: Path) -> None:
    write(tmp_path, "folder_good.py")
    bad = tmp_path / "folder_without.py"
    bad.write_text("application = 1\n")
    assert refusal(tmp_path).startswith(f"{bad}: ")
    assert "'app'" in refusal(tmp_path)


BROKEN = [
    pytest.param("x = 1\nif x\n    pass\n", 2, "SyntaxError", id="syntax"),
    pytest.param("x = 1\n\nimport no_such_module_here\n", 3, "ModuleNotFoundError", id="import"),
    pytest.param("def f():\n    return 1 / 0\n\nf()\n", 2, "ZeroDivisionError", id="deep"),
    pytest.param("import sys\nsys.exit('why')\n", 2, "SystemExit", id="exit"),
    pytest.param(
        "from m2gate import App\napp = App()\n@app.get('/{')\ndef f(r):\n    pass\n", 3, "ValueError", id="route"
    ),
]


@pytest.mark.parametrize(("source", "line", "name"), BROKEN)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, source: str, line: int, name: str) -> None:
    write(tmp_path, "folder_good.py")
    bad = tmp_path / "folder_broken.py"
    bad.write_text(source)
    text = refusal(tmp_path)
    assert name in text
    assert str(bad) in text
    assert text.startswith(f"{bad}:{line}: ")


@pytest.mark.parametrize("name", ["json.py", "select.py"])
def test_names_of_the_standard_library_are_refused(tmp_path: Path, name: str) -> None:
    bad = write(tmp_path, name)
    assert refusal(tmp_path).startswith(f"{bad}: ")
    assert "another name" in refusal(tmp_path)
