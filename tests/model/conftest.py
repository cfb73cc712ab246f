from pathlib import Path

import pytest
import torch
from published_corpus import write_corpus

torch.set_num_threads(1)        # tiny tensors: threads cost more than they give


@pytest.fixture(scope="session")
def mill(tmp_path_factory) -> Path:
    """Home folder that holds the published corpus `mill`: read only."""
    home = tmp_path_factory.mktemp("home")
    write_corpus(home)
    return home
