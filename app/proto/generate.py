"""Write velda_pb2* from velda.proto. grpcio-tools and mypy-protobuf are development tools, absent from the image."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]  # ships no types

ROOT = Path(__file__).parents[2]
PROTO = "app/proto/velda.proto"


def generate(target: Path) -> None:
    """Generate into ``target``, laid out as the repository is."""
    plugins = Path(sys.executable).parent
    outputs = ("python", "grpc_python", "mypy", "mypy_grpc")
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={ROOT}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            *(f"--{output}_out={target}" for output in outputs),
            PROTO,
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc ended with {status}")


if __name__ == "__main__":
    generate(ROOT)
