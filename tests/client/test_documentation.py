"""The README's commands, as they stand there."""

from __future__ import annotations

import re
import shlex

from tests.client.serving import Place
from tests.support.running import CHECKOUT


def documented() -> list[list[str]]:
    section = (CHECKOUT / "README.md").read_text(encoding="utf-8").partition("## Sessions from the command line")[2]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert block
    return [shlex.split(line, comments=True)[1:] for line in block[1].splitlines()]


async def test_every_command_does_what_it_says(served: Place) -> None:
    served.pool("shell")
    commands = documented()
    assert len(commands) == 6
    async with served.agent("shell"), served.agent("shell", "b"):
        for command in commands[:-1]:
            done = await served.run(*command)
            assert (done.code, bool(done.out)) == (0, True), (command, done.error)
    watching = await served.start(*commands[-1])
    assert "shell" in await watching.prints()
    watching.process.terminate()
    await watching.done()
