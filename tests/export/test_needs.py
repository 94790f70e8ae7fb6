"""What a conversion says that it will need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from embgemma.export.needs import conversion_needs
from embgemma.export.quantise.calibration import CalibrationBatch
from embgemma.export.scheme import embedding_format, scheme_formats
from embgemma.kernels.config import EMBEDDINGGEMMA_300M
from embgemma.kernels.model_file import SCHEMES

if TYPE_CHECKING:
    from embgemma.kernels.model_file import Scheme

TOKENS = 33_162  # of the texts that ship, where all are used


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("calibrated", [True, False])
def test_the_published_model(scheme: Scheme, calibrated: bool) -> None:
    batch = CalibrationBatch(np.zeros(TOKENS, np.int32), np.array([0, TOKENS])) if calibrated else None
    formats = scheme_formats(EMBEDDINGGEMMA_300M, scheme)
    needs = conversion_needs(EMBEDDINGGEMMA_300M, formats, embedding_format(scheme), batch, 160e6)
    assert needs.memory < 1.2e9
    assert sum(needs.seconds.values()) < (9 * 60 if calibrated else 2 * 60)
    assert str(needs).startswith("needs ")
    assert "160.0 MB on the disk" in str(needs)
    assert ("calibrating layers" in str(needs)) == calibrated
    assert len(str(needs)) < 250
