"""health.lua in a real Lua 5.1 (the language of Argo CD's gopher-lua), with the base library and nothing else.

lupa opens every library; what is not of the base library is taken away again, the methods of strings too. Argo CD
opens table and a part of os besides, which the script has no use for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lupa.lua51 import LuaRuntime

from tests.support.running import CHECKOUT

SCRIPT = CHECKOUT / "chart" / "files" / "argocd" / "health.lua"
BASE = """
_G _VERSION assert collectgarbage dofile error getfenv getmetatable ipairs load loadfile loadstring next pairs pcall
print rawequal rawget rawset select setfenv setmetatable tonumber tostring type unpack xpcall
"""
"""Lua 5.1's base library (its manual, 5.1) without coroutine, which comes with it there and not in gopher-lua."""

_STRIP = """
local kept = ...
debug.setmetatable("", nil)
local names = {}
for name in pairs(_G) do names[#names + 1] = name end
for _, name in ipairs(names) do
  if not kept[name] then _G[name] = nil end
end
"""


class Health(NamedTuple):
    """What the script returns."""

    status: str
    message: str


def sandbox() -> Any:
    """A LuaRuntime with the base library alone."""
    runtime = LuaRuntime(unpack_returned_tuples=False)
    runtime.execute(_STRIP, runtime.table_from(dict.fromkeys(BASE.split(), True)))
    return runtime


def health(resource: Mapping[str, Any]) -> Health:
    """Of one object; an error of the script is a lupa.LuaError."""
    runtime = sandbox()
    runtime.globals()["obj"] = runtime.table_from(resource, recursive=True)
    told = runtime.execute(SCRIPT.read_text())
    return Health(told["status"], told["message"])
