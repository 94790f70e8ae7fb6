"""LangChain's own tests of embedders, over ours."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="LangChain is not installed")
pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from embgemma.integrations.langchain import EmbgemmaEmbeddings

pytestmark = pytest.mark.filterwarnings("ignore")


class OfOurs:
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return EmbgemmaEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"truncate_dim": 64, "threads": 1}


class TestUnit(OfOurs, EmbeddingsUnitTests):
    pass


class TestIntegration(OfOurs, EmbeddingsIntegrationTests):
    pass
