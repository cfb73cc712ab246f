from pathlib import Path

import pytest
from published_corpus import write_corpus


@pytest.fixture(scope="session")
def mill(tmp_path_factory) -> Path:
    """Home folder that holds the published corpus `mill`: read only."""
    home = tmp_path_factory.mktemp("home")
    write_corpus(home)
    return home
