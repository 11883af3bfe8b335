import official_data
import pytest


@pytest.fixture(autouse=True)
def incomplete(monkeypatch):
    """Lets the tests' official datasets be as small as they are."""
    official_data.allow_incomplete(monkeypatch)


@pytest.fixture(params=official_data.FORMS)
def made(request, tmp_path):
    """Returns a function that makes a folder or an archive, of each form, of files."""
    path = tmp_path / f"data.{request.param}"

    def make(files):
        official_data.FORMS[request.param](path, files)
        return path

    return make
