"""The calls of OpenAI's API: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..kernels.safetensors_file import shorten
from .answers import base64_rows, number_rows, rows_answer
from .requests import Bodies, integer_field, text_field, truth_field, unless_gone, wrong

if TYPE_CHECKING:
    from starlette.requests import Request

    from .service import Service

# After the first five, fields of ours: see README.md.
FIELDS = ("model", "input", "dimensions", "encoding_format", "user", "input_type", "prompt_name", "truncate")
ROWS = {"float": number_rows, "base64": base64_rows}


class OpenAICalls:
    """Answers them."""

    def __init__(self, service: Service, bodies: Bodies) -> None:
        self._service, self._bodies = service, bodies
        self.routes = [
            Route("/v1/embeddings", self._embeddings, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
        ]

    async def _embeddings(self, request: Request) -> Response:
        service = self._service
        async with self._bodies.fields(request, FIELDS) as fields:
            service.check_model(text_field(fields, "model", ""))
            encoding = text_field(fields, "encoding_format", "float")
            if encoding not in ROWS:
                raise wrong("encoding_format", f"encoding_format is {shorten(encoding)}; expected 'float' or 'base64'")
            dim = integer_field(fields, "dimensions", service.full_dim, service.full_dim)
            truncate = truth_field(fields, "truncate", default=False)
            named = [text_field(fields, name, "") for name in ("input_type", "prompt_name")]
            inputs = service.check_inputs(fields.get("input"))
            if any(named) and not isinstance(inputs[0], str):
                raise wrong("input", "token ids hold their prompt; leave out input_type and prompt_name, or send text")
            prompt = service.prompt_name(*named)
            found = await unless_gone(request, service.embed(inputs, prompt, dim, truncate=truncate))
            numbered = enumerate(ROWS[encoding](found.vectors))
            rows = (f'{{"object":"embedding","index":{i},"embedding":{row}}}' for i, row in numbered)
            usage = f'{{"prompt_tokens":{found.tokens},"total_tokens":{found.tokens}}}'
            tail = f'],"model":{json.dumps(service.name)},"usage":{usage}}}'
            return rows_answer('{"object":"list","data":[', rows, tail, found.vectors.size)

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._facts()]})

    async def _model(self, request: Request) -> Response:
        self._service.check_model(request.path_params["name"])
        return JSONResponse(self._facts())

    def _facts(self) -> dict[str, object]:
        model = self._service.model
        return {
            "id": self._service.name,
            "object": "model",
            "created": int(model.path.stat().st_mtime) if model.path.exists() else 0,
            "owned_by": "embgemma",
            "dimensions": self._service.full_dim,
            "max_tokens": model.max_seq_length,
            "prompts": dict(model.prompts),
            "default_prompt": self._service.default_prompt,
            "fingerprint": model.fingerprint(self._service.default_prompt),
        }
