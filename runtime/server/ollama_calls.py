"""The calls of Ollama's API that embed: https://docs.ollama.com/api/embed."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .answers import number_rows, rows_answer
from .requests import Bodies, integer_field, text_field, truth_field, unless_gone, wrong

if TYPE_CHECKING:
    from starlette.requests import Request

    from .service import Embedded, Service

IGNORED = ("options", "keep_alive")  # they say how Ollama runs a model, which here is running
FIELDS = ("model", "input", "truncate", "dimensions", "input_type", "prompt_name", *IGNORED)
OLD_FIELDS = ("model", "prompt", *IGNORED)
SHOW_FIELDS = ("model", "name", "verbose")
FAMILY = "gemma3"


class OllamaCalls:
    """Answers them."""

    def __init__(self, service: Service, bodies: Bodies) -> None:
        self._service, self._bodies = service, bodies
        self.routes = [
            Route("/api/embed", self._embed, methods=["POST"]),
            Route("/api/embeddings", self._embeddings, methods=["POST"]),
            Route("/api/show", self._show, methods=["POST"]),
            *(Route(path, self._models) for path in ("/api/tags", "/api/ps")),
            Route("/api/version", self._version),
        ]

    async def _embed(self, request: Request) -> Response:
        service, start = self._service, time.perf_counter_ns()
        async with self._bodies.fields(request, FIELDS) as fields:
            truncate = truth_field(fields, "truncate", default=True)
            dim = integer_field(fields, "dimensions", 0, service.full_dim, least=0) or service.full_dim  # as Ollama
            named = [text_field(fields, name, "") for name in ("input_type", "prompt_name")]
            found = await self._vectors(request, fields, fields.get("input", []), named, dim, truncate)
            facts = {
                "total_duration": time.perf_counter_ns() - start,
                "load_duration": 0,
                "prompt_eval_count": 0 if found is None else found.tokens,
            }
            name = json.dumps(fields.get("model", service.name))
            rows, values = ([], 0) if found is None else (number_rows(found.vectors), found.vectors.size)
            return rows_answer(f'{{"model":{name},"embeddings":[', rows, f"],{json.dumps(facts)[1:]}", values)

    async def _embeddings(self, request: Request) -> Response:
        async with self._bodies.fields(request, OLD_FIELDS) as fields:
            prompt = text_field(fields, "prompt", "")
            found = await self._vectors(request, fields, prompt, ["", ""], self._service.full_dim, truncate=True)
            return rows_answer('{"embedding":', ["[]"] if found is None else number_rows(found.vectors), "}", 0)

    async def _vectors(
        self, request: Request, fields: dict[str, Any], value: Any, named: list[str], dim: int, truncate: bool
    ) -> Embedded | None:
        """The vectors of texts; None if there are none, by which clients of Ollama load a model."""
        self._service.check_model(text_field(fields, "model", ""))
        if value in ("", []):
            return None
        inputs = self._service.check_inputs(value)
        if not isinstance(inputs[0], str):
            raise wrong("input", "input holds numbers; expected a string or an array of strings")
        prompt = self._service.prompt_name(*named)
        return await unless_gone(request, self._service.embed(inputs, prompt, dim, truncate=truncate))

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"models": [self._facts()]})

    async def _show(self, request: Request) -> Response:
        async with self._bodies.fields(request, SHOW_FIELDS) as fields:
            self._service.check_model(text_field(fields, "model", text_field(fields, "name", "")))
        sizes = {"context_length": self._service.model.max_seq_length, "embedding_length": self._service.full_dim}
        info = {"general.architecture": FAMILY, **{f"{FAMILY}.{name}": size for name, size in sizes.items()}}
        return JSONResponse({**self._facts(), "model_info": info, "capabilities": ["embedding"]})

    async def _version(self, _: Request) -> Response:
        from .. import __version__

        return JSONResponse({"version": __version__})

    def _facts(self) -> dict[str, object]:
        """What a list says of the model; clients print the beginning of the digest, and the time."""
        name, model = self._service.name, self._service.model
        state = model.path.stat() if model.path.exists() else None
        return {
            "name": name,
            "model": name,
            "modified_at": datetime.fromtimestamp(state.st_mtime if state else 0, timezone.utc).isoformat(),
            "size": state.st_size if state else 0,
            "digest": model.fingerprint(self._service.default_prompt),
            "details": {"format": "safetensors", "family": FAMILY, "quantization_level": model.scheme},
        }
