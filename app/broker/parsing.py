"""Messages that are none: gRPC would answer them as errors of ours, and log a traceback for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isasyncgenfunction
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from app.broker.refusal import Reason, RefusedError
from app.broker.reports import reports


class Malformed:
    """In place of a message that cannot be parsed."""


def malformed() -> RefusedError:
    return RefusedError(Reason.BAD_REQUEST, "the message cannot be parsed as what the protocol has here")


class Parsing(grpc.aio.ServerInterceptor):
    """Answers calls whose one request is malformed; a stream of requests gets Malformed to read."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        call, run, stream = handler_call_details.method, handler.unary_unary, handler.unary_stream

        async def refuse(context: Any) -> None:
            refused = malformed()
            reports.refused(refused, call=call, peer=context.peer())
            await context.abort(grpc.StatusCode[refused.reason.code], refused.message)

        def answering(run: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
            async def answer(request: Any, context: Any) -> Any:
                if isinstance(request, Malformed):
                    await refuse(context)
                return await run(request, context)

            return answer

        async def yielding(request: Any, context: Any) -> AsyncIterator[Any]:
            if isinstance(request, Malformed):
                await refuse(context)
            async for answer in stream(request, context):
                yield answer

        return handler._replace(
            request_deserializer=_tolerant(handler.request_deserializer),
            unary_unary=run and answering(run),
            # A stream of answers is yielded, or written through the context as the health service does.
            unary_stream=stream and (yielding if isasyncgenfunction(stream) else answering(stream)),
        )


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(message: bytes) -> Any:
        try:
            return parse(message)
        except DecodeError:
            return Malformed()

    return parsed
