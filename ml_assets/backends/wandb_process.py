"""One run of W&B in a process of its own: told of on standard input, line by line, and free to die or to hang.

``python wandb_process.py`` is started by ``wandb_tracker`` and reads JSON objects: first the settings of the run, then
``{"step": 1, "metrics": {...}}`` and ``{"artifact": name, ...}`` as often as there is something to say, and last
``{"summary": {...}}``. An empty
summary, or an end without one, is a run that failed. It writes one line of JSON: ``mode`` is how the run was kept, and
``trouble`` what went wrong, empty for nothing.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import wandb

# Judgement: without a network the last call would otherwise wait for ever (and the first one 91 s: ``init_seconds``).
_FINISH_TIMEOUT_SECONDS = 60.0
_LONGEST_TROUBLE = 2000


def keep_run(lines: TextIO) -> dict[str, str]:
    """Write the run these lines tell of; return how it was kept, and what went wrong.

    A run that cannot be opened online is kept offline, for ``wandb sync`` to send later.
    """
    asked = json.loads(lines.readline())
    Path(asked["folder"]).mkdir(parents=True, exist_ok=True)
    trouble = ""
    try:
        run = _open(asked, asked["mode"])
    except Exception as error:
        if asked["mode"] != "online":
            raise
        trouble = f"{type(error).__name__}: {error}"
        asked["mode"] = "offline"
        run = _open(asked, "offline")
    summary: dict[str, float] = {}
    for line in lines:
        told = json.loads(line)
        if "summary" in told:
            summary = told["summary"]
            break
        if "artifact" in told:
            try:
                _note(run, told)
            except Exception as error:  # the figures of the run are worth keeping without it
                trouble = trouble or f"{told['artifact']}: {type(error).__name__}: {error}"[:_LONGEST_TROUBLE]
        else:
            run.log(told["metrics"], step=told["step"])
    run.summary.update(summary)  # pyright: ignore[reportUnknownMemberType] # untyped dict
    run.finish(exit_code=0 if summary else 1)
    return {"mode": asked["mode"], "trouble": trouble}


def _note(run: "wandb.Run", told: dict[str, Any]) -> None:
    """Log an artifact that refers to where its manifest lies, as read or as made by the run.

    Its digest in W&B is that of the path below, so that the same one is the same version there. ``use_artifact`` does
    the same for what is read, and refuses offline; this goes into the file that ``wandb sync`` sends.
    """
    import wandb

    artifact = wandb.Artifact(told["artifact"], type=told["kind"], metadata=told["facts"])
    artifact.add_reference(told["reference"], name=f"{told['version']}/{told['digest']}/manifest.json", checksum=False)
    run._log_artifact(  # pyright: ignore[reportPrivateUsage] # see above
        artifact, aliases=told["aliases"], is_user_created=told["is_used"], use_after_commit=told["is_used"]
    )


def _open(asked: dict[str, Any], mode: str) -> "wandb.Run":
    import wandb

    return wandb.init(
        project=asked["project"],
        group=asked["use_case"],
        job_type=asked["job_type"],
        name=asked["run_name"],
        config=asked["parameters"],
        dir=asked["folder"],
        mode="online" if mode == "online" else "offline",
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=asked["init_seconds"],
            finish_timeout=_FINISH_TIMEOUT_SECONDS,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
        ),
    )


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    # What W&B has to say of itself is not the answer.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        outcome = keep_run(sys.stdin)
    except BaseException as error:  # the one who started this is to hear of whatever it was
        outcome = {"mode": "", "trouble": f"{type(error).__name__}: {error}"[:2000]}
    answer.write(json.dumps(outcome))
    answer.close()
